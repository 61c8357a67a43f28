"""OpenAI's own package: completions of all kinds, as its users write them."""

import asyncio
import json
import math

import openai
import pydantic

SEA = [{"role": "user", "content": "Tell me about the sea in two sentences."}]
NAMES = {"type": "object", "additionalProperties": False, "required": ["name", "age", "kind"],
         "properties": {"name": {"type": "string", "maxLength": 20},
                        "age": {"type": "integer", "minimum": 1, "maximum": 99},
                        "kind": {"enum": ["cat", "dog"]}}}


class Animal(pydantic.BaseModel):
    """What an answer is parsed into."""

    kind: str = pydantic.Field(max_length=12)
    legs: int = pydantic.Field(ge=0, le=8)


def run(test):
    server, keys = test.server_with_keys("openai", ["a"])
    client = openai.OpenAI(base_url=f"{server.base}/v1", api_key=keys[0], max_retries=0,
                           timeout=60)
    test.each((models_are_listed, chat_is_answered, what_was_read_is_not_read_again,
               chat_is_streamed, a_long_prompt_is_streamed, several_answers, logprobs_are_told,
               an_answer_stops, seeds_repeat, tokens_are_biased, repetition_is_punished,
               forms_are_kept, texts_are_completed, errors_are_exceptions, a_stream_is_left,
               many_ask_at_once), server, client)


def greedy(client, messages=None, **fields):
    fields = {"max_tokens": 24, "temperature": 0, **fields}
    return client.chat.completions.create(model="smollm2-135m", messages=messages or SEA, **fields)


def text(completion, choice=0):
    return completion.choices[choice].message.content


def models_are_listed(test, server, client):
    models = list(client.models.list())
    test.check("models.list has the model", [it.id for it in models] == ["smollm2-135m"], models)
    model = client.models.retrieve("smollm2-135m")
    test.check("models.retrieve shows it", model.object == "model" and model.created > 0, model)


def chat_is_answered(test, server, client):
    reply = greedy(client)
    choice = reply.choices[0]
    test.check("chat: an answer of the shape", reply.object == "chat.completion"
               and reply.id.startswith("chatcmpl-") and choice.message.role == "assistant"
               and choice.message.content and choice.finish_reason in ("stop", "length"), reply)
    usage = reply.usage
    test.check("chat: usage adds up", 0 < usage.completion_tokens <= 24 and usage.prompt_tokens > 8
               and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage)
    test.check("chat: length is the reason where there is no more room",
               greedy(client, max_tokens=2).choices[0].finish_reason == "length")
    raw = client.with_options(default_headers={"x-request-id": "mine-1"})
    test.check("a request's own number comes back", greedy(raw)._request_id == "mine-1")
    test.check("else it gets one", (greedy(client)._request_id or "").startswith("req_"))
    parts = [{"role": "developer", "content": "Be brief."},
             {"role": "user", "content": [{"type": "text", "text": "Say "},
                                          {"type": "text", "text": "hello."}]}]
    whole = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}]
    test.check("parts of texts are as one text", text(greedy(client, parts))
               == text(greedy(client, whole)))


def what_was_read_is_not_read_again(test, server, client):
    first = greedy(client, [{"role": "user", "content": "My name is Ada and I sail. Who am I?"}])
    messages = [{"role": "user", "content": "My name is Ada and I sail. Who am I?"},
                first.choices[0].message, {"role": "user", "content": "And what do I do?"}]
    second = greedy(client, messages)
    usage = second.usage
    cached = usage.prompt_tokens_details.cached_tokens
    test.check("a conversation goes on from what was read: cached_tokens",
               first.usage.prompt_tokens <= cached < usage.prompt_tokens, usage)
    test.check("asked again, it is answered the same", text(greedy(client, messages))
               == text(second))


def chat_is_streamed(test, server, client):
    chunks = list(greedy(client, stream=True, stream_options={"include_usage": True}))
    *said, last = chunks
    test.check("stream: one id, one created, one model",
               len({(it.id, it.created, it.model, it.object) for it in chunks}) == 1)
    test.check("stream: the role comes first, and once",
               [it.choices[0].delta.role for it in said].index("assistant") == 0
               and sum(it.choices[0].delta.role is not None for it in said) == 1)
    joined = "".join(it.choices[0].delta.content or "" for it in said)
    whole = greedy(client)
    test.check("stream: the same words as at once", joined == text(whole),
               (joined, text(whole)))
    reasons = [it.choices[0].finish_reason for it in said]
    test.check("stream: one reason to end, with the last choice",
               reasons[-1] and not any(reasons[:-1]), reasons)
    test.check("stream: usage comes last, without choices", last.choices == []
               and last.usage.completion_tokens == whole.usage.completion_tokens
               and last.usage.prompt_tokens == whole.usage.prompt_tokens, last)
    raw = list(server.stream("/v1/chat/completions", {"messages": SEA, "max_tokens": 4,
                                                      "stream": True}))
    test.check("stream: [DONE] ends it, and no usage where none was asked for",
               raw[-1] == "[DONE]" and all("usage" not in it for it in raw[:-1]), raw[-2:])


def a_long_prompt_is_streamed(test, server, client):
    long = "\n".join(f"Entry {n}: the wind was {n % 9} and the sea calm." for n in range(120))
    body = {"messages": [{"role": "user", "content": long + "\nWhat was the sea?"}],
            "max_tokens": 8, "stream": True, "temperature": 0}
    events = list(server.stream("/v1/chat/completions", body))
    comments = [it for it in events if isinstance(it, str) and it.startswith(": reading ")]
    test.check("a long prompt's stream says how far the reading is", len(comments) > 2, events[:5])
    chunks = list(client.chat.completions.create(model="smollm2-135m", **body))
    test.check("the package passes over those comments",
               chunks[-1].choices[0].finish_reason in ("stop", "length"))


def several_answers(test, server, client):
    drawn = {"n": 3, "temperature": 1, "seed": 5, "max_tokens": 12}
    reply = greedy(client, **drawn)
    answers = [it.message.content for it in reply.choices]
    test.check("n: so many answers, numbered", [it.index for it in reply.choices] == [0, 1, 2])
    test.check("n: they are drawn apart", len(set(answers)) > 1, answers)
    test.check("n: usage counts all of them", 3 < reply.usage.completion_tokens <= 36, reply.usage)
    streamed = ["", "", ""]
    for chunk in greedy(client, stream=True, **drawn):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    test.check("n: streamed, each is the same", streamed == answers, (streamed, answers))


def logprobs_are_told(test, server, client):
    reply = greedy(client, logprobs=True, top_logprobs=5)
    tokens = reply.choices[0].logprobs.content
    test.check("logprobs: one for each token", len(tokens) == reply.usage.completion_tokens,
               (len(tokens), reply.usage))
    said = b"".join(bytes(it.bytes) for it in tokens)
    test.check("logprobs: their bytes are the answer", said.decode().startswith(text(reply)),
               (said, text(reply)))
    test.check("logprobs: so many of the likeliest, in order", all(
        len(it.top_logprobs) == 5
        and [top.logprob for top in it.top_logprobs]
        == sorted((top.logprob for top in it.top_logprobs), reverse=True) for it in tokens))
    test.check("logprobs: they are probabilities", all(
        it.logprob <= 0 and sum(math.exp(top.logprob) for top in it.top_logprobs) < 1.001
        for it in tokens))
    test.check("logprobs: greedy takes the likeliest", all(
        it.token == it.top_logprobs[0].token for it in tokens))
    streamed = [token for chunk in greedy(client, logprobs=True, top_logprobs=5, stream=True)
                if chunk.choices and chunk.choices[0].logprobs
                for token in chunk.choices[0].logprobs.content]
    test.check("logprobs: streamed, the same", [it.token for it in streamed]
               == [it.token for it in tokens]
               and all(abs(a.logprob - b.logprob) < 0.05 for a, b in zip(streamed, tokens)))


def an_answer_stops(test, server, client):
    whole = text(greedy(client))
    word = whole.split()[4]
    before = whole[:whole.index(word)]
    for stop in (word, ["never said", word]):
        reply = greedy(client, stop=stop)
        test.check(f"stop: the answer ends before {stop!r}", text(reply) == before
                   and reply.choices[0].finish_reason == "stop", (text(reply), before))
    chunks = list(greedy(client, stop=word, stream=True))
    streamed = "".join(it.choices[0].delta.content or "" for it in chunks if it.choices)
    test.check("stop: nothing of it is streamed", streamed == before, (streamed, before))


def seeds_repeat(test, server, client):
    def drawn(seed):
        return text(greedy(client, temperature=1, seed=seed, max_tokens=12))

    test.check("seed: the same seed, the same answer", drawn(7) == drawn(7))
    answers = {drawn(seed) for seed in range(4)}
    test.check("seed: others, others", len(answers) > 1, answers)


def tokens_are_biased(test, server, client):
    first = greedy(client, logprobs=True, top_logprobs=2, max_tokens=1)
    top = first.choices[0].logprobs.content[0].top_logprobs
    ids = [server.call("POST", "/tokenize", {"text": it.token}).json["tokens"] for it in top]
    if not test.check("tokenize: the likeliest tokens are tokens", all(len(i) == 1 for i in ids),
                      (top, ids)):
        return
    banned = greedy(client, logit_bias={str(ids[0][0]): -100}, max_tokens=1)
    test.check("logit_bias: a token that is banned gives way", text(banned) == top[1].token,
               (text(banned), top))
    bias = {str(ids[1][0]): 100}
    test.check("logit_bias: a token that is wanted comes", text(greedy(
        client, logit_bias=bias, max_tokens=3)) == top[1].token * 3)


def repetition_is_punished(test, server, client):
    def words(**fields):
        reply = client.completions.create(model="smollm2-135m", temperature=0, max_tokens=24,
                                          prompt="The sea, the sea, the sea, the sea,", **fields)
        return reply.choices[0].text.count("sea")

    plain = words()
    for name in ("frequency_penalty", "presence_penalty"):
        test.check(f"{name}: fewer repetitions", words(**{name: 2}) < plain, plain)


def forms_are_kept(test, server, client):
    ask = [{"role": "user", "content": "Describe a pet as JSON with its name and age."}]
    reply = greedy(client, ask, response_format={"type": "json_object"}, max_tokens=200)
    said, reason = text(reply), reply.choices[0].finish_reason
    test.check("json_object: the answer is an object", said.lstrip().startswith("{")
               and (reason == "length" or isinstance(json.loads(said), dict)), (reason, said))
    named = {"name": "pet", "schema": NAMES, "strict": True}
    for temperature in (0, 1.5):
        said = text(greedy(client, ask, temperature=temperature, seed=3, max_tokens=120,
                           response_format={"type": "json_schema", "json_schema": named}))
        pet = json.loads(said)
        test.check(f"json_schema: it is followed at temperature {temperature}",
                   set(pet) == {"name", "age", "kind"} and 1 <= pet["age"] <= 99
                   and pet["kind"] in ("cat", "dog") and len(pet["name"]) <= 20, said)
    parsed = client.chat.completions.parse(model="smollm2-135m", messages=ask, temperature=0,
                                           max_tokens=80, response_format=Animal)
    test.check("parse: a class of pydantic's comes back",
               isinstance(parsed.choices[0].message.parsed, Animal), parsed)


def texts_are_completed(test, server, client):
    def complete(prompt, **fields):
        return client.completions.create(model="smollm2-135m", prompt=prompt, temperature=0,
                                         **{"max_tokens": 12, **fields})

    prompts = ["The capital of France is", "Two and two make"]
    one, two = (complete(prompt) for prompt in prompts)
    test.check("completions: an answer of the shape", one.object == "text_completion"
               and one.id.startswith("cmpl-") and one.choices[0].text
               and one.choices[0].finish_reason == "length", one)
    both = complete(prompts)
    test.check("completions: several prompts, in their order",
               [it.index for it in both.choices] == [0, 1]
               and [it.text for it in both.choices] == [one.choices[0].text, two.choices[0].text],
               both.choices)
    test.check("completions: usage of several adds up", both.usage.total_tokens
               == one.usage.total_tokens + two.usage.total_tokens, both.usage)
    four = complete(prompts, n=2)
    test.check("completions: n for each prompt", [it.index for it in four.choices] == [0, 1, 2, 3]
               and four.choices[2].text == two.choices[0].text)
    logprobs = complete(prompts[0], logprobs=2).choices[0].logprobs
    test.check("completions: logprobs, as of old", "".join(logprobs.tokens) == one.choices[0].text
               and len(logprobs.token_logprobs) == 12 and len(logprobs.top_logprobs[0]) == 2
               and logprobs.text_offset[0] == 0, logprobs)
    streamed = ["", ""]
    for chunk in complete(prompts, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    test.check("completions: streamed, the same", streamed == [it.text for it in both.choices])
    test.check("completions: 16 tokens where nobody says", client.completions.create(
        model="smollm2-135m", prompt="One, two,", temperature=0).usage.completion_tokens <= 16)


def errors_are_exceptions(test, server, client):
    def raised(what, kind, call, code=None, param=None):
        try:
            call()
            error = None
        except openai.APIStatusError as told:
            error = told
        test.check(f"{what} is {kind.__name__}", type(error) is kind and error.code == code
                   and error.param == param, (repr(error), getattr(error, "body", None)))

    raised("a field that is not supported", openai.BadRequestError, lambda: greedy(
        client, tools=[]), "unsupported_field", "tools")
    raised("a value out of bounds", openai.BadRequestError, lambda: greedy(
        client, temperature=3), "invalid_value", "temperature")
    raised("a schema that is none", openai.BadRequestError, lambda: greedy(
        client, response_format={"type": "json_schema", "json_schema": {
            "name": "x", "schema": {"$ref": "#/nowhere"}}}), "invalid_value", "response_format")
    raised("an unknown model", openai.NotFoundError, lambda: client.chat.completions.create(
        model="gpt-4o", messages=SEA), "model_not_found", "model")
    raised("an unknown model, looked up", openai.NotFoundError, lambda: client.models.retrieve(
        "gpt-4o"), "model_not_found", "model")
    raised("an unknown context", openai.NotFoundError, lambda: greedy(
        client, extra_body={"context": "nowhere"}), "context_not_found", "context")
    raised("a wrong key", openai.AuthenticationError, lambda: greedy(
        client.with_options(api_key="mn-wrong")), "invalid_api_key")


def a_stream_is_left(test, server, client):
    stream = greedy(client, stream=True, max_tokens=2000, temperature=1)
    for _, _ in zip(range(4), stream):
        pass
    stream.close()
    idle, running = server.wait_idle(5)
    test.check("a stream that is left frees its place", idle, running)


def many_ask_at_once(test, server, client):
    async def all_of_them():
        many = openai.AsyncOpenAI(base_url=f"{server.base}/v1", api_key=server.key, timeout=60)
        async with many:
            asked = [many.chat.completions.create(
                model="smollm2-135m", messages=SEA, temperature=0, max_tokens=24)
                for _ in range(8)]
            return await asyncio.gather(*asked)

    alone = text(greedy(client))
    answers = {text(it) for it in asyncio.run(all_of_them())}
    test.check("eight at once are answered as one alone", answers == {alone}, (alone, answers))
