"""Native code is compiled once, by the compiler that is there."""

import os
import stat

import pytest

from latency.kernels import build


@pytest.fixture
def compiler_that_copies(tmp_path, monkeypatch):
    """A compiler that writes a line for each call, and its version as the library."""
    path = tmp_path / "copying-c++"
    path.write_text(f"""#!/bin/sh
if [ "$1" = --version ]; then echo version ${{VERSION:-1}}; exit; fi
echo call >> {tmp_path}/calls
while [ "$1" != -o ]; do shift; done
echo made > "$2"
""")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(path))
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "cache"))
    return path


def compiled_anew():
    build.library.cache_clear()
    try:
        return build.library()
    finally:
        build.library.cache_clear()


def calls(path):
    return len((path.parent / "calls").read_text().splitlines())


def test_a_library_is_compiled_once_for_sources_flags_and_compiler(compiler_that_copies, monkeypatch):
    first = compiled_anew()
    assert first.read_text() == "made\n"
    assert compiled_anew() == first
    assert calls(compiler_that_copies) == 1
    monkeypatch.setenv("VERSION", "2")
    assert compiled_anew() != first
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-g"))
    compiled_anew()
    assert calls(compiler_that_copies) == 3
    assert sorted(path.suffix for path in first.parent.iterdir()) == [".so"] * 3  # nothing unfinished is left


def test_a_library_of_other_sources_is_another(compiler_that_copies, tmp_path, monkeypatch):
    first = compiled_anew()
    copied = tmp_path / "native"
    copied.mkdir()
    for source in build.SOURCES.iterdir():
        (copied / source.name).write_bytes(source.read_bytes() + b"\n")
    monkeypatch.setattr(build, "SOURCES", copied)
    assert compiled_anew() != first


def test_without_a_compiler_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-c++")
    with pytest.raises(RuntimeError, match=r"CXX names 'no-such-c\+\+', which is not there; install g\+\+ or set CXX$"):
        compiled_anew()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RuntimeError, match=r"none of g\+\+, c\+\+, clang\+\+; install g\+\+ or set CXX$"):
        compiled_anew()


def test_what_the_compiler_says_is_the_error(compiler_that_copies):
    compiler_that_copies.write_text("#!/bin/sh\n[ $1 = --version ] && exit\necho 'a.cpp:1: error: no' >&2\nexit 3\n")
    with pytest.raises(RuntimeError, match=r"not compiled: .*copying-c\+\+ ended with 3: a.cpp:1: error: no$"):
        compiled_anew()
    assert not any((compiler_that_copies.parent / "cache" / "kernels").iterdir())


def test_a_cache_that_cannot_be_written_says_so(compiler_that_copies, monkeypatch):
    monkeypatch.setenv("HWNAS_CACHE", os.devnull)
    with pytest.raises(RuntimeError, match="HWNAS_CACHE"):
        compiled_anew()
