"""The npm package in js/: size, types, contents, and an installation in a fresh folder."""

from __future__ import annotations

import gzip
import json
import subprocess

import pytest

import marketfeed
from tests.support.js import MODULE, PACKAGE, foreign
from tests.support.peers import need

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

MAX_BYTES = 12_000
MODULES = ("marketfeed", "inflate", "nodes")
PUBLISHED = {f"{name}{end}" for name in MODULES for end in (".js", ".d.ts")}
PUBLISHED |= {"types.d.ts", "README.md", "LICENSE", "package.json"}


def run(*argv: object, cwd: object = PACKAGE) -> str:
    done = subprocess.run([str(a) for a in argv], cwd=str(cwd), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tsc(*arguments: object) -> str:
    return run(need("node"), foreign("typescript") / "bin" / "tsc", *arguments)


def test_the_module_is_at_most_12_kb_gzipped():
    assert len(gzip.compress(MODULE.read_bytes(), 9)) <= MAX_BYTES


def test_the_module_has_the_version_of_the_engine():
    assert f'VERSION = "{marketfeed.__version__}"' in MODULE.read_text("utf-8")
    assert json.loads((PACKAGE / "package.json").read_text())["version"] == marketfeed.__version__


def test_the_modules_are_correct_in_their_types():
    tsc("-p", ".")


def test_the_published_types_are_those_of_the_modules(tmp_path):
    tsc("-p", ".", "--noEmit", "false", "--declaration", "--emitDeclarationOnly", "--outDir", tmp_path)
    for name in MODULES:
        assert (tmp_path / f"{name}.d.ts").read_text() == (PACKAGE / f"{name}.d.ts").read_text()


def test_the_package_installs_into_a_fresh_folder_with_its_types(tmp_path):
    (packed,) = json.loads(run(need("npm"), "pack", "--json", "--pack-destination", tmp_path))
    assert {entry["path"] for entry in packed["files"]} == PUBLISHED
    fresh = tmp_path / "program"
    fresh.mkdir()
    (fresh / "package.json").write_text('{"type": "module"}')
    run(need("npm"), "install", "--offline", "--no-audit", tmp_path / packed["filename"], cwd=fresh)
    (fresh / "program.mjs").write_text(
        'import { connect, VERSION } from "marketfeed";\nimport { inflate } from "marketfeed/inflate.js";\n'
        'import { nodes } from "marketfeed/nodes.js";\n'
        'const feed = connect("http://127.0.0.1:9/", { inflate, nodes });\n'
        "console.log(VERSION, feed.state.state);\nfeed.close();\n"
    )
    assert run(need("node"), "program.mjs", cwd=fresh) == f"{marketfeed.__version__} connecting\n"
    (fresh / "program.ts").write_text(
        'import { connect } from "marketfeed";\nimport { inflate } from "marketfeed/inflate.js";\n'
        'import { nodes } from "marketfeed/nodes.js";\n'
        'import type { Quote } from "marketfeed/types.js";\n'
        'const feed = connect("/", { token: async () => "t", tier: "vip", inflate, nodes });\n'
        'const quote: Quote | undefined = feed.latest("AAPL");\n'
        "feed.subscribe({ quotes: ['AAPL'] }, (m) => { if (m.T === 'q') console.log(m.bp, quote?.ap); });\n"
        "(async () => { for await (const a of feed.alerts({ consumer: 'x' })) console.log(a.msg); })();\n"
        "// @ts-expect-error\nfeed.latest(5);\n"
    )
    options = ("--strict", "--noEmit", "--target", "es2023", "--module", "nodenext")
    run(need("node"), foreign("typescript") / "bin" / "tsc", *options, "program.ts", cwd=fresh)
