"""What of a request passes, what is dropped, and what is told of it."""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.gateway.fields import ALLOWED, Each, Fields, Shape, Withheld
from tests.unit.gateway.go_texts import harmless, text_of
from tests.unit.gateway.judging import Judged, Judging, as_bytes, judging

SIZES = (1, 2, 7, 64, 65536)
NUMBER = 3000


@pytest.fixture(scope="module")
def judge() -> Iterator[Judging]:
    with tempfile.TemporaryDirectory() as directory, judging(Path(directory)) as judge:
        yield judge


class TestIgnore:
    @pytest.mark.parametrize(
        ("body", "left", "ignored"),
        [
            ('{"model":"m","shift":true}', '{"model":"m"}', "shift"),
            ('{"shift":true,"model":"m"}', '{"model":"m"}', "shift"),
            ('{"shift":true}', "{}", "shift"),
            ('{ "shift" : true }', "{  }", "shift"),
            ('{"model":"m" , "shift" : [1,{"a":2}] , "stream":true}',
             '{"model":"m"  , "stream":true}', "shift"),
            ('{"keep_alive":0,"shift":1,"model":"m"}', '{"model":"m"}', "keep_alive shift"),
            ('{"model":"m","keep_alive":0,"shift":1}', '{"model":"m"}', "keep_alive shift"),
            ('{"keep_alive":0 ,\n"shift":1 ,\n"model":"m"}', '{\n"model":"m"}',
             "keep_alive shift"),
            ('{"keep_alive":0 ,\n"shift":1 }', "{ }", "keep_alive shift"),
            ('{"keep_alive":0,"model":"m","shift":1}', '{"model":"m"}', "keep_alive shift"),
            ('{"options":{"num_ctx":5,"seed":1}}', '{"options":{"seed":1}}', "options.num_ctx"),
            ('{"options":{"seed":1,"num_ctx":5},"shift":0}', '{"options":{"seed":1}}',
             "options.num_ctx shift"),
            ('{"options":{"num_ctx":5}}', '{"options":{}}', "options.num_ctx"),
            ('{"options":{"num_ctx":5,"num_gpu":1}}', '{"options":{}}',
             "options.num_ctx options.num_gpu"),
            ('{"messages":[{"role":"user","a":1},{"a":2,"role":"user"},{"b":{}}]}',
             '{"messages":[{"role":"user"},{"role":"user"},{}]}', "messages[].a messages[].b"),
            ('{"messages":[{"tool_calls":[{"x":1,"function":{"y":1,"name":"f"}}]}]}',
             '{"messages":[{"tool_calls":[{"function":{"name":"f"}}]}]}',
             "messages[].tool_calls[].x messages[].tool_calls[].function.y"),
            ('{"shift":"a \\" } ] , \\\\","model":"m"}', '{"model":"m"}', "shift"),
            ('{"shift":null,"model":"m"}', '{"shift":null,"model":"m"}', ""),
            ('{"options":null}', '{"options":null}', ""),
            ('{}', '{}', ""),
            # What no list has: named, so that its caller knows.
            ('{"new":1,"model":"m"}', '{"model":"m"}', "new"),
            ('{"new":1,"new":2,"model":"m"}', '{"model":"m"}', "new"),
            ('{"options":{"new":1}}', '{"options":{}}', "options.new"),
            ('{"":1}', "{}", "(an empty name)"),
            (json.dumps({"x" * 200: 1}), "{}", "(a long name)"),
            ('{"a\\nb, c\u00e9\r\n":1}', "{}", "a?nb? c????"),
            # What Go would take for a withheld field goes like that field, however often.
            ('{"SHIFT":true}', "{}", "SHIFT"),
            ('{"\u017fhift":true}', "{}", "??hift"),
            ('{"sh\\u0069ft":true}', "{}", "sh?u0069ft"),
            ('{"\u212aeep_alive":0,"keep\\u005falive":0}', "{}", "???eep_alive keep?u005falive"),
            ('{"shift":null,"SHIFT":true}', '{"shift":null}', "SHIFT"),
            ('{"SHIFT":true,"shift":false,"Shift":true,"model":"m"}', '{"model":"m"}',
             "SHIFT shift Shift"),
            ('{"options":{"NUM_CTX":5,"num_ctx":null}}', '{"options":{"num_ctx":null}}',
             "options.NUM_CTX"),
        ],
    )  # fmt: skip
    def test_drops_members_with_their_commas(
        self, judge: Judging, body: str, left: str, ignored: str
    ) -> None:
        named = ["a?nb? c????"] if ignored.startswith("a?") else _names(ignored)
        for size in SIZES:
            judged = judge.judge(body, size=size)
            assert (judged.verdict, judged.edited) == (None, left.encode()), size
            assert judged.ignored == named

    @pytest.mark.parametrize(
        "field",
        [
            # Dropped, each of these would be another request than was meant.
            '"Messages":[]', '"MODEL":"m"', '"mod\\u0065l":"m"', '"Options":{}',
            '"\u017ftream":true', '"\\u017ftream":true', '"thin\u212a":1', '"thin\\u212A":1',
            '"options":{"Seed":1}', '"messages":[{"Role":"user"}]', '"tools":[{"Function":{}}]',
            # Twice is never guessed about.
            '"shift":1,"shift":2', '"options":{"num_ctx":1,"num_ctx":2}', '"stream":1,"stream":1',
            '"options":[]', '"options":"x"', '"messages":{}', '"model":5', '"model":"a b"',
            '"shift":', '"shift":[', '"new":[,', '"new"', '"new":1,', '"shift":1 "x":2',
            '"options":{"num_ctx":1,}', '"format":' + "[" * 64, '"shift":' + '{"a":' * 64,
        ],
    )  # fmt: skip
    def test_refuses_what_it_would_refuse_else(self, judge: Judging, field: str) -> None:
        for body in ("{" + field + "}", '{"think":true,' + field + "}"):
            for size in (1, 65536):
                judged = judge.judge(body, size=size)
                assert judged.verdict is not None, body
                assert judged.edited is None

    def test_at_the_border_of_two_parts(self, judge: Judging) -> None:
        text = b'{"model":"m" , "shift":"' + b"y" * 40 + b'","options":{"num_ctx":5},"stream":true}'
        left = b'{"model":"m" ,"options":{},"stream":true}'
        for at in range(65536 - len(text) - 2, 65538):
            judged = judge.judge(b" " * at + text)
            assert judged.edited == b" " * at + left.replace(b'"m" ,', b'"m" ,')
            assert judged.ignored == ["shift", "options.num_ctx"]

    def test_a_header_has_an_end(self, judge: Judging) -> None:
        judged = judge.judge({f"new_{number}" * 12: 1 for number in range(100)})
        assert (len(judged.ignored), judged.ignored[-1]) == (21, "...")
        assert judged.edited == b"{}"
        many = {"messages": [{"role": "user", "x": 1}] * 10001}
        assert judge.judge(many).verdict == {
            "code": "too_complex", "field": "messages[10000]",
            "reason": "has more than 10000 fields that are not passed on",
        }  # fmt: skip
        assert judge.judge({"messages": many["messages"][1:]}).ignored == ["messages[].x"]

    @pytest.mark.parametrize(
        ("text", "pauses"),
        [
            pytest.param(b'"format":"' + b"x" * 30_000_000 + b'","shift":1', 100, id="a long text"),
            pytest.param(b'"shift":"' + b'\\"' * 1_900_000 + b'"', 200, id="quotes"),
            pytest.param(b'"shift":[' + b"1," * 400_000 + b"1]", 50, id="numbers"),
            pytest.param(b'"messages":[' + b'{"x":1},' * 9_999 + b"{}]", 20, id="many edits"),
            pytest.param(
                b",".join(b'"new_%d":1' % number for number in range(200_000)),
                300,
                id="many fields dropped",
            ),
            pytest.param(
                b'"messages":[' + (b'{"content":"' + b"y" * 5_000 + b'","x":1},') * 9_999 + b"{}]",
                150,
                id="many edits in a long text",
            ),
        ],
    )
    def test_gives_way_to_others(self, judge: Judging, text: bytes, pauses: int) -> None:
        """... all the while, also while it is edited: by the processor's own time, whatever else
        this machine does.
        """
        judged = judge.judge(b"{" + text + b"}")
        assert judged.verdict is None
        assert judged.ignored
        assert judged.pauses > pauses
        assert judged.longest < 0.02, "seconds"


def _names(text: str) -> list[str]:
    return [text] if text.startswith("(") else text.split()


class TestOtherWays:
    BODY = '{"model":"m","keep_alive":0,"options":{"num_ctx":5}}'

    def test_refuse_names_the_first(self, judge: Judging) -> None:
        verdict = judge.judge(self.BODY, way="refuse").verdict
        assert verdict
        assert (verdict["code"], verdict["field"]) == ("withheld", "keep_alive")
        verdict = judge.judge('{"new":1}', way="refuse").verdict
        assert verdict
        assert (verdict["code"], verdict["field"]) == ("unknown_field", "new")

    def test_allow_passes_what_is_listed(self, judge: Judging) -> None:
        judged = judge.judge(self.BODY, way="allow")
        assert (judged.verdict, judged.ignored, judged.edits) == (None, [], [])
        # What is not, reaches no server; nothing is guessed of what comes near.
        assert judge.judge('{"new":1}', way="allow").ignored == ["new"]
        for field in ("SHIFT", "\u017fhift", "Model"):
            verdict = judge.judge(f'{{"{field}":1}}', way="allow").verdict
            assert verdict
            assert verdict["code"] == "unknown_field"

    @pytest.mark.parametrize("call", sorted(ALLOWED))
    def test_nothing_that_loads_anew_passes_without(self, judge: Judging, call: str) -> None:
        """Also what other servers than Ollama would take for it, on any path and any level."""
        said = {"keep_alive": 0, "ttl": 1, "num_ctx": 5, "shift": True, "context_length": 5}
        body = {
            **said, "model": "m", "options": {**said, "draft_num_predict": 1},
            "stream_options": said, "reasoning": said, "extra_body": said,
        }  # fmt: skip
        judged = judge.judge(body, call)
        assert judged.edited is not None
        left = json.loads(judged.edited)
        assert {
            key for level in (left, left.get("options", {})) for key in said if key in level
        } == (set())
        assert judge.judge(body, call, "refuse").verdict is not None

    def test_an_admin_may_say_to_one_host_what_it_likes(self, judge: Judging) -> None:
        for way in ("refuse", "ignore", "allow"):
            judged = judge.judge('{"model":"m","parameters":{"num_ctx":5},"x":1}', "managed", way)
            assert (judged.verdict, judged.ignored, judged.model) == (None, [], "m")
            for field in ('"Model":"a"', '"m\\u006fdel":"a"', '"x":1,"x":2'):
                assert judge.judge("{" + field + "}", "managed", way).verdict, field


class TestModel:
    def test_its_place_has_the_quotes(self, judge: Judging) -> None:
        for size in SIZES:
            judged = judge.judge('{"a":1, "model" : "hf.co\\/m:1" }', size=size)
            assert judged.model == "hf.co/m:1"
            from_, to = judged.places["model"]
            assert '{"a":1, "model" : "hf.co\\/m:1" }'[from_ - 1 : to] == '"hf.co\\/m:1"'

    def test_show_has_two_words_for_it(self, judge: Judging) -> None:
        assert judge.judge({"name": "m"}, "api/show").model == "m"
        judged = judge.judge({"name": "m", "model": "m"}, "api/show")
        assert (judged.model, judged.edited, judged.ignored) == ("m", b'{"name": "m"}', [])
        for one in (None, ""):
            judged = judge.judge({"model": one, "name": "m"}, "api/show")
            assert (judged.verdict, judged.model) == (None, "m")
        assert judge.judge({"name": "a", "model": "b"}, "api/show").verdict

    @pytest.mark.parametrize("body", ["{}", '{"model":null}', '{"model":""}'])
    def test_none(self, judge: Judging, body: str) -> None:
        judged = judge.judge(body)
        assert (judged.verdict, judged.model, "model" in judged.places) == (None, None, False)


class TestPlaces:
    CALL = "v1/chat/completions"

    def test_of_the_usage_that_is_asked_for(self, judge: Judging) -> None:
        text = ' {"stream":true,"stream_options": {"include_usage" : false } }'
        for size in SIZES:
            judged = judge.judge(text, self.CALL, size=size)
            places = judged.places
            assert judged.stream is True
            assert (places["open"], places["is_empty"]) == (2, False)
            assert text[places["stream_options"]["open"] - 1] == "{"
            assert not places["stream_options"]["is_empty"]
            asked = places["include_usage"]
            assert text[asked["1"] - 1 : asked["2"]] == "false"
            assert asked["is_true"] is False
        true = judge.judge('{"stream_options":{"include_usage":true}}', self.CALL)
        assert true.places["include_usage"]["is_true"] is True

    def test_empty_is_what_is_empty_after_the_edits(self, judge: Judging) -> None:
        judged = judge.judge('{"shift":1,"stream_options":{"new":1}}', self.CALL)
        assert judged.places["stream_options"]["is_empty"]
        assert not judged.places["is_empty"]
        assert judge.judge('{"shift":1}', self.CALL).places["is_empty"]

    @pytest.mark.parametrize("way", ["refuse", "ignore", "allow"])
    def test_null_gives_its_place_free(self, judge: Judging, way: str) -> None:
        """Who writes another `stream_options` before it would have it overruled."""
        judged = judge.judge('{"stream_options":null,"model":"m"}', self.CALL, way)
        assert (judged.edited, judged.ignored) == (b'{"model":"m"}', [])
        assert "stream_options" not in judged.places

    @pytest.mark.parametrize(
        ("text", "stream"), [("true", True), ("false", False), ("null", None), ('"x"', None)]
    )
    def test_stream(self, judge: Judging, text: str, stream: bool | None) -> None:
        for call, shape in ALLOWED.items():
            if isinstance(shape, dict) and "stream" in shape:
                assert judge.judge(f'{{"stream":{text}}}', call).stream is stream
        assert judge.judge('{"options":{"stream":true},"messages":[]}').stream is None


def _turns(first: Any, answers: int, **said: Any) -> dict[str, Any]:
    turn = [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "and?"}]
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": first}]
    return {"model": "m", **said, "messages": messages + turn * answers}


class TestTalk:
    @pytest.mark.parametrize("call", ["api/chat", "v1/chat/completions", "v1/messages"])
    def test_is_one_at_all_turns(self, judge: Judging, call: str) -> None:
        talks = [judge.judge(_turns("Hi", turn), call).talk for turn in range(4)]
        assert talks == [b"be brief\0Hi"] * 4
        assert judge.judge(_turns("Ho", 1), call).talk != talks[0]

    def test_is_told_by_what_stands_behind_the_turns_too(self, judge: Judging) -> None:
        one, two = ({**_turns("Hi", 1), "system": text} for text in ("be kind", "be brief"))
        assert judge.judge(one, "v1/messages").talk == b"be brief\0Hi\0be kind"
        assert judge.judge(two, "v1/messages").talk == b"be brief\0Hi\0be brief"

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("length", [0, 1, 1023, 1024, 1025, 5000])
    def test_of_a_long_text_is_its_length_and_ends(
        self, judge: Judging, length: int, size: int
    ) -> None:
        text = "".join(f"{number} \u00e9\\" for number in range(length))[:length]
        whole = judge.judge(_turns(text, 2)).talk
        assert whole
        assert len(whole) < 2000
        assert judge.judge(_turns(text, 2), size=size).talk == whole
        assert judge.judge(_turns(text + "x", 2), size=size).talk != whole
        assert judge.judge(_turns("x" + text, 2), size=size).talk != whole

    def test_of_parts_is_their_texts(self, judge: Judging) -> None:
        """Clients move their marks from turn to turn."""
        marked = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}
        image = {"type": "image", "source": {"data": "x", "type": "base64"}}
        bodies = ["Hi", [marked], [{"text": "Hi", "type": "text"}], [image, marked]]
        talks = {
            judge.judge(
                {"system": [{"type": "text", "text": "be brief"}], "messages": [
                    {"content": body, "role": "user"}, {"role": "assistant", "content": "x"},
                ]}, "v1/messages",
            ).talk
            for body in bodies
        }  # fmt: skip
        assert talks == {b"be brief\0Hi"}

    def test_of_responses(self, judge: Judging) -> None:
        said = {"instructions": "be brief", "model": "m"}
        one = judge.judge({**said, "input": "Hi"}, "v1/responses")
        item = {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
        more = [
            {"type": "function_call", "Role": "x", "name": "f"},
            {"role": "user", "content": "?"},
        ]
        two = judge.judge({**said, "input": [item, *more, 5]}, "v1/responses")
        assert (one.verdict, two.verdict) == (None, None)
        assert one.talk == two.talk == b"be brief\0Hi"

    def test_of_a_prompt_is_how_it_begins(self, judge: Judging) -> None:
        """It has all turns in it."""
        start = "The story of " * 100
        for call in ("api/generate", "v1/completions"):
            talks = {judge.judge({"prompt": start + end}, call).talk for end in ("", "a", "b" * 9)}
            assert talks == {start[:1024].encode()}
            assert judge.judge({"prompt": ["a", 1]}, call).talk is None

    def test_is_bounded_and_none_without_a_conversation(self, judge: Judging) -> None:
        messages = [{"role": "system", "content": "x" * 5000}] * 40
        talk = judge.judge({"messages": messages}).talk
        assert talk
        assert 8000 < len(talk) <= 16384
        assert judge.judge({"input": ["a"]}, "api/embed").talk is None


# What may stand at a place of a request, listed or not.
_KEYS = st.one_of(
    st.sampled_from(
        ["model", "shift", "keep_alive", "options", "messages", "tools", "num_ctx", "seed", "role",
         "content", "function", "name", "tool_calls", "stream", "format", "new", "x"]
    ),
    st.text(st.sampled_from('ab"\\é\n\u212a'), min_size=1, max_size=4).map(lambda key: f"x{key}"),
)  # fmt: skip
_PLAIN = st.one_of(
    st.integers(), st.booleans(), st.none(), st.text(st.sampled_from('ab"\\é{}[],: \n'), max_size=5)
)


def _objects(shape: Mapping[str, Shape]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that have the form of `shape`, with fields more and with fields less."""
    listed = {name: st.nothing() | _values(inner) for name, inner in shape.items()}
    few = st.lists(st.sampled_from(sorted(listed)), max_size=5, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: listed[name] for name in names})
    )
    more = st.dictionaries(_KEYS.filter(lambda key: key not in shape), _CONTENT, max_size=3)
    pairs = st.tuples(few, more).map(lambda both: list({**both[0], **both[1]}.items()))
    return pairs.flatmap(st.permutations).map(dict)


_CONTENT = st.recursive(
    _PLAIN,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KEYS, inner, max_size=2),
    max_leaves=4,
)


def _values(shape: Shape) -> st.SearchStrategy[Any]:
    if shape == "model":
        return st.sampled_from(["m:1", "m/n"])
    if isinstance(shape, (str, Withheld)):
        return _CONTENT
    if isinstance(shape, Each):
        return st.none() | st.lists(_values(shape.of), max_size=3)
    return st.none() | _objects(_fields(shape))


def _fields(shape: Shape) -> Mapping[str, Shape]:
    shape = shape.fields if isinstance(shape, Fields) else shape
    assert isinstance(shape, dict)
    return shape


def _without(value: Any, shape: Shape) -> Any:
    """What is left of `value`, where all that is withheld or not listed is dropped."""
    if value is None or isinstance(shape, str) or (isinstance(shape, Fields) and shape.content):
        return value
    if isinstance(shape, Each):
        return [_without(one, shape.of) for one in value] if isinstance(value, list) else value
    fields = _fields(shape)
    return {
        name: _without(inner, fields[name])
        for name, inner in value.items()
        if name in fields
        and (inner is None or not isinstance(fields[name], Withheld))
        and not (inner is None and isinstance(fields[name], Fields))
    }


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_what_is_left_is_the_request_without_what_is_dropped(judge: Judging, data: Any) -> None:
    """... and but for that it is the same, byte for byte."""
    call = data.draw(
        st.sampled_from(["api/chat", "v1/chat/completions", "api/show", "v1/messages"])
    )
    shape = ALLOWED[call]
    request = data.draw(_objects(_fields(shape)))
    space = data.draw(st.sampled_from([None, 0, 1, 3]))
    marks = data.draw(st.sampled_from([(",", ":"), (" , ", " :\n"), (", ", ": ")]))
    text = json.dumps(
        request, indent=space, separators=marks, ensure_ascii=data.draw(st.booleans())
    ).encode()
    way = data.draw(st.sampled_from(["ignore", "allow", "refuse"]))
    judged = judge.judge(text, call, way, data.draw(st.integers(1, 40)))
    if call == "api/show" and {"model", "name"} <= set(request):
        return  # two models, or one of them too many
    left = _without(request, shape)
    if way != "ignore":
        # Judged again, the other ways find nothing to say of what was left.
        text = json.dumps(left).encode()
        judged = judge.judge(text, call, way)
        assert (judged.verdict, judged.edited) == (None, text)
        return
    assert judged.verdict is None, text
    assert list(_pairs(judged.edited)) == list(_pairs(json.dumps(left)))
    assert judged.edited == _cut(text, judged)
    assert bool(judged.ignored) == (left != request) or not judged.ignored
    again = judge.judge(judged.edited, call, "refuse")
    assert (again.verdict, again.model, again.talk) == (None, judged.model, judged.talk)


def _pairs(text: bytes | str | None) -> Any:
    assert text is not None
    return json.loads(text, object_pairs_hook=list, parse_int=str)


def _cut(text: bytes, judged: Judged) -> bytes:
    """`text` without the places of the edits, which ascend, and put nothing in."""
    parts, at = [], 0
    for from_, to, new in judged.edits:
        assert at < from_ <= to
        assert new == ""
        parts.append(text[at : from_ - 1])
        at = to
    return b"".join([*parts, text[at:]])


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("reader") / "reader"
    source = Path(__file__).parent / "reader" / "main.go"
    subprocess.run(["go", "build", "-o", program, source], check=True)
    return program


@pytest.mark.parametrize("way", ["refuse", "ignore"])
def test_go_reads_no_setting_out_of_what_passes(judge: Judging, reader: Path, way: str) -> None:
    """Whatever is written, and however it was edited: encoding/json finds the model that was told,
    and nothing that acts on everybody.
    """
    dice = random.Random(7)  # noqa: S311 - the same texts each time
    texts = [text_of(dice) for _ in range(NUMBER)]
    passed = [
        (text, judged)
        for text in texts
        if (judged := judge.judge(text, way=way, size=dice.choice(SIZES))).verdict is None
    ]
    sent = _seen(reader, [as_bytes(judged.edited) for _, judged in passed])
    before = _seen(reader, [text for text, _ in passed])
    told = edited = 0
    for (text, judged), seen, unedited in zip(passed, sent, before, strict=True):
        if seen is not None:
            assert [name for name in seen["set"] if not harmless(name)] == [], text
            assert seen["model"] == (judged.model or ""), text
            told += 1
            edited += unedited is not None and unedited["set"] != seen["set"]
    # Enough of each kind, or this would say nothing.
    assert told > NUMBER / 20
    assert edited > NUMBER / 20 or way == "refuse"


def _seen(reader: Path, texts: list[bytes]) -> list[Any]:
    lines = "".join(f"{text.hex()}\n" for text in texts)
    told = subprocess.run([reader], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in told.stdout.splitlines()]
