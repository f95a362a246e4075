"""Reading texts of any encoding, refusing what is none, and keeping uploads."""

import os

import pytest

from llm import files, paths

STORY = "Zoë said: “It is 5 °C!”\nThe naïve fox — très petit — ran home.\n"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    "codec, mark, said",
    [
        ("utf-8", b"", ""),
        ("utf-8", b"\xef\xbb\xbf", "byte order mark"),
        ("utf-16-le", b"\xff\xfe", "UTF-16"),
        ("utf-16-be", b"\xfe\xff", "UTF-16"),
        ("utf-16-le", b"", "UTF-16"),
        ("utf-16-be", b"", "UTF-16"),
        ("utf-32-le", b"\xff\xfe\0\0", "UTF-32"),
        ("utf-32-be", b"\0\0\xfe\xff", "UTF-32"),
        ("cp1252", b"", "Windows-1252"),
    ],
)
def test_every_encoding_gives_the_same_text_and_says_what_it_was(codec, mark, said):
    read = files.text_of(mark + STORY.encode(codec))
    assert read.text == STORY
    assert "\ufeff" not in read.text
    assert [said in note for note in read.notes] == ([True] if said else [])


def test_utf_16_without_a_mark_is_told_by_its_zero_bytes_in_other_scripts_and_lengths_too():
    for text in ("Привет, мир! Как дела?\n", "Καλημέρα κόσμε, τι κάνεις;\n", "a" * 200_000, STORY * 3000):
        for codec in ("utf-16-le", "utf-16-be"):
            assert files.text_of(text.encode(codec)).text == text


def test_latin_1_bytes_that_windows_1252_lacks_are_still_read():
    read = files.text_of("café \x81\n".encode("latin-1"))
    assert read.text == "café \x81\n"
    assert "Latin-1" in read.notes[0]


def test_damaged_utf_8_is_not_taken_for_an_older_character_set():
    data = ("Übung macht den Größten müde. " * 5).encode()
    read = files.text_of(data[:50] + b"\xff" + data[50:] + "ü".encode()[:1])
    assert read.text.count("\ufffd") == 2
    assert "Größten" in read.text
    assert read.notes == ("2 bytes are not valid UTF-8 (the first is byte 51); they are shown as \ufffd.",)


@pytest.mark.parametrize(
    "end, note",
    [("\n", ()), ("\r\n", ("3 Windows line ends",)), ("\r", ("3 old line ends",))],
)
def test_line_ends_become_one_kind_and_are_counted(end, note):
    read = files.text_of(f"one{end}two{end}three{end}".encode())
    assert read.text == "one\ntwo\nthree\n"
    assert len(read.notes) == len(note) and all(n.startswith(start) for n, start in zip(read.notes, note))


def test_mixed_line_ends_are_counted_apart():
    read = files.text_of(b"a\r\nb\rc\nd\r\n")
    assert read.text == "a\nb\nc\nd\n"
    assert [note.split()[0] for note in read.notes] == ["2", "1"]


@pytest.mark.parametrize(
    "data, said",
    [
        (b"", "empty"),
        (b" \r\n\t ", "blanks"),
        (b"\xef\xbb\xbf", "blanks"),
        (b"PK\x03\x04\x14\0\0\0", "ZIP"),
        (b"\x1f\x8b\x08\0abc", "gzip"),
        (b"%PDF-1.7\n%plain letters only\n", "PDF"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "PNG"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "JPEG"),
        (b"\x80\x04\x95\x10\0\0\0", "pickle"),
        (b"\x80\x02}q\x00.", "pickle"),
        ((300).to_bytes(8, "little") + b'{"wte.weight":{"dtype":"F32"', "safetensors"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b"\x7fELF\x02\x01\x01\0", "ELF"),
        (b"plain words, then one zero\0byte", "zero bytes, the first at byte 27"),
        (bytes(range(1, 32)) * 100, "control characters"),
        (b"\xff\xfea", "breaks off"),
    ],
)
def test_what_is_no_text_is_refused_by_name(data, said):
    with pytest.raises(ValueError, match=said):
        files.text_of(data)


def test_random_bytes_are_refused():
    import random

    for seed in range(50):
        data = random.Random(seed).randbytes(4000).replace(b"\0", b"")
        with pytest.raises(ValueError, match=r"not a text|looks like"):
            files.text_of(data)


def test_a_text_that_merely_begins_like_a_binary_file_is_a_text():
    for text in (
        "MZ is a name in this story.\n",
        "RIFF, said the guitar.\n",
        "GIF89a is a format.\n",
        "PAR1\n",
    ):
        assert files.text_of(text.encode()).text == text


def test_a_terminal_log_with_a_few_escapes_is_a_text():
    text = "\x1b[1mok\x1b[0m test passed\n" * 20
    assert files.text_of(text.encode()).text == text


def test_a_file_is_read_again_only_when_it_changed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("first")
    first = files.read_text(path)
    assert files.read_text(path) is first
    path.write_text("other text")
    os.utime(path, ns=(1, 1))
    assert files.read_text(path).text == "other text"


def test_errors_name_the_file_and_a_missing_one_is_said(tmp_path):
    (tmp_path / "photo.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(ValueError, match=r"photo\.txt: This looks like a PNG picture"):
        files.read_text(tmp_path / "photo.txt")
    with pytest.raises(ValueError, match=r"no file called 'gone\.txt'"):
        files.read_text(tmp_path / "gone.txt")
    with pytest.raises(ValueError, match="no file called"):
        files.read_text(tmp_path)


def test_a_file_of_200_mb_is_refused_before_it_is_read(tmp_path, monkeypatch):
    big = tmp_path / "big.txt"
    with big.open("wb") as f:
        f.truncate(200_000_000)  # a hole: takes no room, and reading it would say "zero bytes"
    with pytest.raises(ValueError, match=r"200\.0 MB; at most 100 MB"):
        files.save_upload(big, "big.txt")
    with pytest.raises(ValueError, match=r"200\.0 MB; at most 5 MB"):
        files.read_text(big, limit=5_000_000)
    monkeypatch.setenv("LLM_MAX_UPLOAD_MB", "0.00002")
    with pytest.raises(ValueError, match="at most"):
        files.save_upload("A text of thirty characters...", "x")
    monkeypatch.setenv("LLM_MAX_UPLOAD_MB", "many")
    with pytest.raises(ValueError, match="LLM_MAX_UPLOAD_MB"):
        files.upload_limit()
    assert not list(paths.datasets().iterdir())


def test_an_upload_becomes_a_dataset_with_its_bytes_and_notes(tmp_path):
    path = tmp_path / "My story (2).TXT"
    path.write_bytes(b"one\r\ntwo\r\n")
    name = files.save_upload(path, path.name)
    assert name == "My-story-2"
    kept = paths.datasets() / f"{name}.txt"
    assert kept.read_bytes() == path.read_bytes()
    assert files.read_text(kept).text == "one\ntwo\n"
    assert paths.checked_name(name) == name


def test_the_same_text_keeps_its_name_and_another_gets_its_own(tmp_path):
    first = files.save_upload("Once upon a time", "tale")
    assert files.save_upload("Once upon a time", "tale.txt") == first == "tale"
    other = files.save_upload("Another time", "tale")
    assert other.startswith("tale-") and other != first
    assert files.save_upload("Another time", "tale") == other
    assert (paths.datasets() / "tale.txt").read_text() == "Once upon a time"
    assert (paths.datasets() / f"{other}.txt").read_text() == "Another time"


def test_a_shipped_name_is_never_shadowed(tmp_path, monkeypatch):
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / "stories.txt").write_text("the shipped stories")
    monkeypatch.setattr(paths, "shipped_datasets", lambda: shipped)
    assert files.save_upload("mine", "stories").startswith("stories-")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..\\..\\boot.ini", "a/b/../c.txt", "", "...", "日本語", "-rf", "x" * 300]
)
def test_no_name_leads_out_of_the_folder(name):
    kept = files.save_upload("Some text.", name)
    assert (paths.datasets() / f"{kept}.txt").read_text() == "Some text."
    assert [p.name for p in paths.datasets().iterdir()] == [f"{kept}.txt"]
    assert paths.checked_name(kept)


def test_refused_uploads_leave_nothing_behind(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"\x7fELF\0\0")
    for source, said in ((tmp_path / "x.txt", "ELF"), ("  ", "blanks"), ("half \ud83d pair", "Character 6")):
        with pytest.raises(ValueError, match=said):
            files.save_upload(source, "x")
    assert not list(paths.datasets().iterdir())


def test_a_full_disk_is_said_and_leaves_nothing(monkeypatch):
    import errno
    from pathlib import Path

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ValueError, match="disk is full"):
        files.save_upload("Some text.", "x")
    assert not list(paths.datasets().iterdir())
