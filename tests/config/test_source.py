# ruff: noqa: E501  messages stand here word for word, one on a line
from __future__ import annotations

import os
import threading
import tomllib
from pathlib import Path

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbproc.config.positions import MOST_VALUES
from lbproc.config.problem import UnusableConfigError
from lbproc.config.source import LARGEST_BYTES, MOST_FILES, Source, read_source, shown


def refused(path: Path, text: str | bytes | None = None) -> list[str]:
    """The problems of reading a path, whose file may be written first; without the directory."""
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UnusableConfigError) as caught:
        read_source(path)
    return [line.replace(f"{path.parent}/", "") for line in caught.value.problems]


def split(directory: Path, *texts: str) -> Source:
    """A directory of files named by their order, read."""
    for number, text in enumerate(texts):
        (directory / f"{number}.toml").write_text(text)
    return read_source(directory)


def test_a_file_is_read_with_the_place_of_every_key(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('[a]\nb = [\n "x",\n { c = 1 }]\n')
    source = read_source(file)
    assert source.document == {"a": {"b": ["x", {"c": 1}]}}
    assert source.base == tmp_path
    assert source.place(("a",)) == (str(file), 1)
    assert source.place(("a", "b", 1, "c")) == (str(file), 4)
    assert source.place(("a", "missing", "deeper")) == (str(file), 1)
    assert source.place(("missing",)) == (str(file), 1)
    assert source.known(("a", "b", 9)) == ("a", "b")
    assert (
        str(source.problem(("a", "z"), "is wrong", "write it right"))
        == f"{file}:1: a.z: is wrong; write it right"
    )


def test_relative_paths_count_from_the_file_whatever_it_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    source = read_source(Path("a.toml"))
    assert (source.base, source.first) == (tmp_path, "a.toml")


def test_a_pipe_is_read_too(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("a = 1",))
    writer.start()
    assert read_source(pipe).document == {"a": 1}
    writer.join()


def test_files_of_a_directory_merge_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / ".hidden.toml").write_text("not toml")
    (tmp_path / "notes.txt").write_text("not toml")
    source = split(
        tmp_path,
        'x = 1\n[pools.web]\nbackends = ["a"]\n[[l.routes]]\nn = 1\n',
        '[pools.web]\nbackends = ["b",\n{ z = 1 }]\nq = { a = 1 }\n[pools.b]\nc = 1\n',
        "[[l.routes]]\n\nn = 2\n[pools.web.q]\nb = 2",
    )
    assert source.document == {
        "x": 1,
        "pools": {"web": {"backends": ["a", "b", {"z": 1}], "q": {"a": 1, "b": 2}}, "b": {"c": 1}},
        "l": {"routes": [{"n": 1}, {"n": 2}]},
    }
    assert source.base == tmp_path
    assert source.place(("pools", "web", "backends", 0)) == (str(tmp_path / "0.toml"), 3)
    assert source.place(("pools", "web", "backends", 2, "z")) == (str(tmp_path / "1.toml"), 3)
    assert source.place(("l", "routes", 1, "n")) == (str(tmp_path / "2.toml"), 3)
    assert source.place(("pools", "web", "q", "b")) == (str(tmp_path / "2.toml"), 5)


def test_a_key_that_two_files_set_is_a_problem_of_the_later_one(tmp_path: Path) -> None:
    with pytest.raises(UnusableConfigError) as caught:
        split(tmp_path, "[a]\nb = 1\nc = 1\nd = []", "[a]\nb = 1\nc = [1]\nd = {}")
    zero, one = tmp_path / "0.toml", tmp_path / "1.toml"
    assert caught.value.problems == (
        f"{one}:2: a.b: is set in {zero}:2 already; keep one of the two",
        f"{one}:3: a.c: is set in {zero}:3 already, there as an integer and here as an array; keep one of the two",
        f"{one}:4: a.d: is set in {zero}:4 already, there as an array and here as a table; keep one of the two",
    )


TREES = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(
        st.integers(0, 3),
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2)
        ),
        max_leaves=5,
    ),
    max_size=3,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(TREES, min_size=1, max_size=3))
def test_every_key_of_merged_files_has_a_place(
    tmp_path_factory: pytest.TempPathFactory, trees: list[dict[str, object]]
) -> None:
    try:
        source = split(tmp_path_factory.mktemp("split"), *map(tomli_w.dumps, trees))
    except UnusableConfigError:
        return

    def check(value: object, path: tuple[str | int, ...]) -> None:
        assert source.known(path) == path
        inner = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for step, one in inner:
            check(one, (*path, step))

    for key, value in source.document.items():
        check(value, (key,))


def test_a_syntax_error_in_each_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UnusableConfigError) as caught:
        split(tmp_path, "a", "b = 1", "c = ")
    assert [(Path(problem.file).name, problem.line) for problem in caught.value.found] == [
        ("0.toml", 1),
        ("2.toml", 1),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a]\nb", "2: a.b: a key has no = after it (at the end of the file); write key = value, or [table] for a table"),
        ("[a]\nb 1\n", "2: a.b: a key has no = after it (column 3); write key = value, or [table] for a table"),
        ("a = 1\nb = web\n", '2: b: there is no value that TOML knows (column 5); put text in quotes: key = "text"'),
        ("b = 2024-02-30\n", '1: b: there is no such date (column 5); put text in quotes: key = "text"'),
        ("a = 10s\n", "1: a: something follows the value (column 7); write one key = value on a line, and text in quotes"),
        ("= 1\n", "1: the line begins with no key (column 1); write key = value, [table] or # comment"),
        ("a. = 1\n", "1: a key begins with what no key may hold (column 4); put such a key in quotes"),
        ("[a]\n[b]\n[a]\n", "3: a: the table is written already (column 3); put its keys where it stands first"),
        ("a = 1\na = 2\n", "2: a: the key stands here a second time (column 6); keep one of the two"),
        ("a = {b = 1, b = 2}\n", "1: a.b: a key stands twice in the table (column 18); keep one of the two"),
        ("a = {b = 1}\n[a.c]\n", "2: a.c: the table is written already (column 5); put its keys where it stands first"),
        ("[a.b]\n[a]\nb.c = 1\n", "3: a.b.c: adds to a table or list that is closed already (column 8); write all of it in one place"),
        ("[a\n", "1: the table's name has no ] after it (column 3); write [table]"),
        ("[[a]\n", "1: the table's name has no ]] after it (column 4); write [[table]]"),
        ("a = [1 2]\n", "1: a[0]: a list is not closed (column 8); put commas between its values and ] after the last"),
        ("a = {b = 1 c = 2}\n", "1: a.b: a table is not closed (column 12); put commas between its keys and } after the last, on one line"),
        ('a = "\\q"\n', "1: a: a backslash is followed by nothing it can escape (column 8); write \\\\, or single quotes around"),
        ('a = "\\uZZZZ"\n', "1: a: \\u is not followed by hexadecimal digits (column 8); write \\\\, or single quotes around"),
        ('a = "\\uD800"\n', "1: a: \\u names no character (column 12); write \\\\, or single quotes around"),
        ('a = "x\nb = 1\n', "1: a: a string or comment holds what must be escaped (column 7); close the string on its line, or escape it"),
        ('a = """x\n', "2: a: a string is not closed (at the end of the file); end it with the quotes it began with"),
        ("a = '''x\n", "2: a: a string is not closed (at the end of the file); end it with the quotes it began with"),
        ("a = 1 # \x00\n", "1: a: a string or comment holds what must be escaped (column 9); close the string on its line"),
        ('a = "\x1b"\n', "1: a: a string or comment holds what must be escaped (column 6); close the string on its line, or escape it"),
    ],
)  # fmt: skip
def test_a_syntax_error_names_the_line_the_key_before_it_and_a_remedy(
    tmp_path: Path, text: str, message: str
) -> None:
    assert refused(tmp_path / "a.toml", text) == [f"a.toml:{message}"]


def test_a_syntax_error_nobody_has_words_for_is_reported_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(text: str) -> None:
        raise tomllib.TOMLDecodeError("Something new")

    monkeypatch.setattr(tomllib, "loads", fail)
    assert refused(tmp_path / "a.toml", "a = 1\n") == [
        "a.toml:2: a: is not TOML (at the end of the file); correct the line"
    ]


def test_a_secret_beside_a_syntax_error_does_not_show(tmp_path: Path) -> None:
    for text in (
        "token = hush\n",
        'token = "hush',
        'token "hush"',
        'token = "hush" "puppy"',
        'token = "hush\n"',
    ):
        assert "hush" not in str(refused(tmp_path / "a.toml", text))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = 1\nb = '\xff'\n", "a.toml:2: is not UTF-8 text; save the file as UTF-8"),
        (b"\xef\xbb\xbfa = 1\n", "a.toml:1: begins with a byte order mark; save the file as UTF-8 without it"),
        ("a = 1".encode("utf-16"), "a.toml:1: is not UTF-8 text; save the file as UTF-8"),
        (b"#" * (LARGEST_BYTES + 1), "a.toml: the configuration is larger than 4 MiB; name a TOML file, or make it smaller"),
        (b"a = " + b"[" * 10_000, "a.toml:1: a[0][0][0]: nests more than 32 deep; write plain tables; no key needs more than six"),
        (b"a = 1\nb = " + b"9" * 10_000, "a.toml:2: b: a value of more than 64 characters stands outside quotes; put text in quotes, or write a shorter number"),
    ],
    ids=["latin-1", "mark", "utf-16", "large", "deep", "long"],
)  # fmt: skip
def test_what_is_no_text_or_beyond_a_bound_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    assert refused(tmp_path / "a.toml", content) == [message]


def test_a_device_without_end_is_refused() -> None:
    assert refused(Path("/dev/zero")) == [
        "zero: the configuration is larger than 4 MiB; name a TOML file, or make it smaller"
    ]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.toml") == [
        'none.toml: there is no such file; name another one with -c, or write a first one with "lbproc init"'
    ]
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    assert refused(tmp_path / "loop.toml") == [
        "loop.toml: cannot be read: Too many levels of symbolic links; name a file that this user may read"
    ]
    (line,) = refused(tmp_path / ("x" * 300))
    assert line.endswith("cannot be read: File name too long; name one that this user may read")


def test_a_directory_without_files_or_with_too_many_is_refused(tmp_path: Path) -> None:
    right = f"put 1 to {MOST_FILES} there, such as 10-main.toml"
    (line,) = refused(tmp_path)
    assert line.endswith(f"the directory holds no files whose names end in .toml; {right}")
    for number in range(MOST_FILES + 1):
        (tmp_path / f"{number}.toml").touch()
    (line,) = refused(tmp_path)
    assert line.endswith(f"the directory holds {MOST_FILES + 1} files whose names end in .toml; {right}")


def test_the_bound_on_size_holds_for_all_files_together(tmp_path: Path) -> None:
    with pytest.raises(UnusableConfigError) as caught:
        split(tmp_path, "#" * LARGEST_BYTES, "# one more")
    assert caught.value.problems == (
        f"{tmp_path}/1.toml: the configuration is larger than 4 MiB; name a TOML file, or make it smaller",
    )


@pytest.mark.slow
def test_the_bound_on_values_holds_for_all_files_together(tmp_path: Path) -> None:
    half = "1," * (MOST_VALUES // 2)
    with pytest.raises(UnusableConfigError) as caught:
        split(tmp_path, f"a = [{half}]", f"b = [{half}]")
    assert caught.value.problems == (
        f"{tmp_path}/1.toml: the configuration holds more than 100000 values; "
        "write fewer files, or make them smaller",
    )


def test_a_name_that_a_terminal_could_stumble_over_is_quoted() -> None:
    assert shown(Path("conf/a b.toml")) == "conf/a b.toml"
    assert shown(Path("a\x1b[2J.toml")) == '"a\\u001B[2J.toml"'
    assert shown(Path(os.fsdecode(b"\xff.toml"))) == '"\\uDCFF.toml"'
