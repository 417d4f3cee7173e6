"""Built-in feed types, one module or package each; they import only core, errors and the Feed protocol."""

if __name__ != "marketfeed.feeds":
    raise ImportError(f"import marketfeed.feeds, not {__name__}: a module under two names is two modules")
