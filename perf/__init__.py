"""Questions asked of the machine, one file each; README.md beside this file lists them."""
