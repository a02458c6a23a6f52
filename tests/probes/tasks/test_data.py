"""What a file holds decides what it asks; a treebank by name is brought once and whole."""

import http.server
import json
import threading

import pytest

from labkit.errors import FetchError, InputError, MissingFile, OneClass
from probes.sentences import fetched as treebank_fetch
from probes.sentences.fetched import fetch_treebank, is_name
from probes.tasks.data import sentences_of, tasks_of, treebank_paths

pytestmark = pytest.mark.usefixtures("own_cache")

TREE = "# newdoc id = d\n# text = {0} bark\n1\t{0}\tdog\tNOUN\t_\t_\t2\tnsubj\t_\t_\n2\tbark\tbark\tVERB\t_\t_\t0\troot\t_\t_\n"  # fmt: skip  # noqa: E501


def bank(letter):
    """Twelve sentences of two words, of other nouns for another letter."""
    return "".join(TREE.format(letter * (number + 1)) + "\n" for number in range(12))


PAIR = {
    "sentence_good": "The dogs bark.", "sentence_bad": "The dogs barks.",
    "linguistics_term": "agreement", "UID": "verb",
}  # fmt: skip


def lre(name, objects):
    return {
        "name": name,
        "prompt_templates": ["{} is in"],
        "samples": [
            {"subject": f"Town {number}", "object": thing} for number, thing in enumerate(objects)
        ],
        "properties": {"relation_type": "factual", "domain_name": "a", "range_name": "b"},
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "toy.conllu").write_text(bank("a"))
    (tmp_path / "pairs.jsonl").write_text("\n".join([json.dumps(PAIR)] * 4))
    (tmp_path / "lre").mkdir()
    (tmp_path / "lre" / "towns.json").write_text(json.dumps(lre("towns", ["x", "y"] * 9)))
    (tmp_path / "lre" / "one.json").write_text(json.dumps(lre("one object", ["x"] * 20)))
    places = "\n".join(f"P{n},{n},{-n},9,{n % 2 == 0}" for n in range(20))
    (tmp_path / "places.csv").write_text(f"name,latitude,longitude,page_views,is_test\n{places}")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("pairs.jsonl", {"grammaticality", "better_of_pair"}),
        ("lre", {"towns"}),
        ("places.csv", {"latitude", "longitude"}),
    ],
)
def test_a_file_asks_what_it_holds(folder, name, tasks):
    assert set(tasks_of(folder / name)) == tasks


def test_a_treebank_asks_linguistic_tasks(folder):
    found = tasks_of(folder / "toy.conllu", names=["upos"])
    assert set(found["upos"].labels.tolist()) == {"NOUN", "VERB"}
    assert sentences_of(folder / "toy.conllu", 2)[1].startswith("toy.conllu, 2 sentences")


@pytest.mark.parametrize(
    ("error", "name", "more"),
    [
        (MissingFile, "nothing.csv", {}),
        (InputError, ".", {"names": ["upos"], "test": "x"}),
        (InputError, "places.csv", {"context": 1}),
        (InputError, "pairs.jsonl", {"test": "toy.conllu"}),
        (InputError, "pairs.jsonl", {"names": ["upos"]}),
        (OneClass, "lre/one.json", {}),
        (OneClass, "lre", {"names": ["one_object"]}),
    ],
)
def test_what_does_not_fit_is_refused_by_name(folder, error, name, more):
    with pytest.raises(error):
        tasks_of(folder / name, **more)


@pytest.fixture
def server(monkeypatch):
    """A host with one treebank; `server.asked` lists the addresses that were asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            host.asked.append(self.path)
            name = self.path.rsplit("/", 1)[-1]
            if self.path.startswith("/list/UD_Toy-Dogs"):
                files = ["LICENSE.txt", "en_toy-ud-train.conllu", "en_toy-ud-test.conllu"]
                body = json.dumps(
                    [{"name": file, "download_url": f"{root}/{file}"} for file in files]
                ).encode()
            elif name.endswith((".conllu", ".txt")):
                body = bank("b" if "test" in name else "a").encode()
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) + host.short))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host.asked, host.short = [], 0
    root = f"http://127.0.0.1:{host.server_port}"
    monkeypatch.setattr(treebank_fetch, "LISTING", root + "/list/{name}?ref={release}")
    threading.Thread(target=host.serve_forever, daemon=True).start()
    yield host
    host.shutdown()
    host.server_close()


def test_a_treebank_by_name_is_fetched_once_with_its_licence(server, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    path = fetch_treebank("UD_Toy-Dogs", "train", release="r1")
    assert "ref=r1" in server.asked[0] and path.read_text().startswith("# newdoc")
    assert (path.parent / "LICENSE.txt").is_file()
    before = len(server.asked)
    assert (
        fetch_treebank("UD_Toy-Dogs", "train", release="r1") == path and len(server.asked) == before
    )
    own, test = treebank_paths("UD_Toy-Dogs")
    assert own.name == "train.conllu" and test is not None and test.name == "test.conllu"
    assert len(tasks_of("UD_Toy-Dogs", names=["upos"])["upos"].held_out) == 24


def test_what_breaks_off_leaves_nothing(server, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    server.short = 1000
    with pytest.raises(FetchError, match="cannot be fetched"):
        fetch_treebank("UD_Toy-Dogs")
    server.short = 0
    with pytest.raises(MissingFile, match="no dev part"):
        fetch_treebank("UD_Toy-Dogs", "dev")
    with pytest.raises(FetchError, match="no such treebank"):
        fetch_treebank("UD_Other-One")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_without_a_network_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(treebank_fetch, "LISTING", "http://127.0.0.1:9/{name}{release}")
    with pytest.raises(FetchError, match="CoNLL-U file instead"):
        fetch_treebank("UD_English-EWT")
    with pytest.raises(InputError, match="has a name such as"):
        fetch_treebank("English")
    assert is_name("UD_Ancient_Greek-PROIEL") and not is_name("UD_x/../y")
