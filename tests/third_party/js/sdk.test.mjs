// The JavaScript SDK: what its documentation shows, its exceptions, its retries, its way to hang up.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const { CORRAL_URL, CORRAL_MODEL, CORRAL_NARROW, CORRAL_BROKEN } = process.env;
const model = CORRAL_MODEL;
const client = new OpenAI({ baseURL: `${CORRAL_URL}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "How warm is Paris? Ann is 7." }];
const endless = { ignore_eos: true, logit_bias: { 28: 90 }, max_tokens: 1000 };

const weather = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: {
      type: "object",
      properties: {
        place: { type: "string", maxLength: 20 },
        unit: { type: "string", enum: ["C", "F"] },
      },
      required: ["place", "unit"],
      additionalProperties: false,
    },
  },
};

async function scrape() {
  return (await fetch(`${CORRAL_URL}/metrics`)).text();
}

async function sample(name, labels) {
  for (const line of (await scrape()).split("\n")) {
    if (line.startsWith(`${name}{`) && labels.every((label) => line.includes(label))) {
      return Number(line.slice(line.lastIndexOf(" ") + 1));
    }
  }
  return 0;
}

const running = () => sample("corral_requests_running", [`model="${CORRAL_NARROW}"`]);

async function untilIdle() {
  const deadline = Date.now() + 60_000;
  while ((await running()) > 0) {
    assert.ok(Date.now() < deadline, "the slot is still taken");
  }
}

test("a chat, whole and streamed", async () => {
  const ask = { model, messages, temperature: 0, max_tokens: 12 };
  const whole = await client.chat.completions.create(ask);
  const stream = await client.chat.completions.create({
    ...ask,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
  assert.ok(whole._request_id);
});

test("the SDK folds a stream itself", async () => {
  const stream = client.chat.completions.stream({ model, messages, n: 2, seed: 1, max_tokens: 12 });
  const texts = ["", ""];
  stream.on("chunk", (chunk) => {
    for (const { index, delta } of chunk.choices) texts[index] += delta.content ?? "";
  });
  const { choices } = await stream.finalChatCompletion();
  assert.deepEqual(choices.map((choice) => choice.message.role), ["assistant", "assistant"]);
  assert.deepEqual(choices.map((choice) => choice.message.content), texts);
});

test("a completion and a scored one", async () => {
  const ask = { model, prompt: "Red, green,", temperature: 0, max_tokens: 4 };
  const { choices } = await client.completions.create({ ...ask, logprobs: 2, echo: true });
  assert.equal(choices[0].logprobs.token_logprobs[0], null);
  assert.ok(choices[0].text.startsWith("Red, green,"));
});

test("an answer of a schema", async () => {
  const Person = z.object({ name: z.string().max(20), age: z.number().int().min(0).max(120) });
  const answer = await client.chat.completions.parse({
    model,
    messages,
    temperature: 0,
    response_format: zodResponseFormat(Person, "person"),
  });
  const person = answer.choices[0].message.parsed;
  assert.deepEqual(Object.keys(person).sort(), ["age", "name"]);
  assert.ok(Number.isInteger(person.age));
});

test("a call, whole and streamed", async () => {
  const ask = { model, messages, temperature: 0, tools: [weather], tool_choice: "required" };
  const whole = await client.chat.completions.create(ask);
  const [wanted] = whole.choices[0].message.tool_calls;
  assert.equal(wanted.function.name, "get_weather");
  assert.ok(["C", "F"].includes(JSON.parse(wanted.function.arguments).unit));
  const stream = client.chat.completions.stream(ask);
  const final = await stream.finalChatCompletion();
  const [call] = final.choices[0].message.tool_calls;
  assert.equal(call.function.name, "get_weather");
  assert.ok(["C", "F"].includes(JSON.parse(call.function.arguments).unit));
});

test("a function that the SDK runs", async () => {
  const asked = [];
  const runner = client.chat.completions.runTools(
    {
      model,
      messages,
      temperature: 0,
      max_tokens: 60,
      tool_choice: { type: "function", function: { name: "get_weather" } },
      tools: [
        {
          ...weather,
          function: {
            ...weather.function,
            parse: JSON.parse,
            function: (given) => {
              asked.push(given);
              return "19 degrees";
            },
          },
        },
      ],
    },
    { maxChatCompletions: 1 },
  );
  await runner.done();
  assert.equal(asked.length, 1);
  assert.ok(["C", "F"].includes(asked[0].unit));
});

test("models", async () => {
  const ids = [];
  for await (const each of client.models.list()) ids.push(each.id);
  assert.deepEqual(ids, [model, CORRAL_NARROW, CORRAL_BROKEN]);
  assert.equal((await client.models.retrieve(model)).id, model);
});

test("an embedding", async () => {
  // The SDK asks for base64 unless told otherwise.
  const [decoded, plain] = await Promise.all([
    client.embeddings.create({ model, input: ["Hi", "there"] }),
    client.embeddings.create({ model, input: ["Hi", "there"], encoding_format: "float" }),
  ]);
  assert.deepEqual(decoded.data, plain.data);
  const length = Math.hypot(...plain.data[0].embedding);
  assert.ok(Math.abs(length - 1) < 1e-3);
});

test("a response, whole and streamed", async () => {
  const ask = { model, input: "Name a colour.", temperature: 0, max_output_tokens: 16 };
  const whole = await client.responses.create(ask);
  const stream = await client.responses.create({ ...ask, stream: true });
  let text = "";
  let last;
  for await (const event of stream) {
    if (event.type === "response.output_text.delta") text += event.delta;
    last = event;
  }
  assert.ok(["response.completed", "response.incomplete"].includes(last.type));
  assert.equal(text, whole.output_text);
  assert.equal(last.response.usage.output_tokens, whole.usage.output_tokens);
});

test("exceptions", async () => {
  const cases = [
    [{ temperature: -1 }, OpenAI.BadRequestError, 400],
    [{ model: "nobody" }, OpenAI.NotFoundError, 404],
    [{ model: CORRAL_BROKEN }, OpenAI.InternalServerError, 500],
  ];
  for (const [fields, kind, status] of cases) {
    for (const stream of [false, true]) {
      const asked = client.chat.completions.create({ model, messages, stream, ...fields });
      await assert.rejects(asked, (error) => {
        assert.ok(error instanceof kind, `${error}`);
        assert.equal(error.status, status);
        assert.ok(error.requestID);
        assert.ok(error.message);
        return true;
      });
    }
  }
});

test("a full queue is tried again, a hung-up stream frees its slot", async () => {
  const ask = { model: CORRAL_NARROW, messages };
  const stream = await client.chat.completions.create({ ...ask, ...endless, stream: true });
  const chunks = stream[Symbol.asyncIterator]();
  await chunks.next();
  assert.equal(await running(), 1);
  const refused = () =>
    sample("corral_requests_total", [
      `model="${CORRAL_NARROW}"`,
      'endpoint="/chat/completions"',
      'status="429"',
    ]);
  const before = await refused();
  const patient = client.withOptions({ maxRetries: 1 });
  await assert.rejects(patient.chat.completions.create(ask), OpenAI.RateLimitError);
  assert.equal(await refused(), before + 2);
  stream.controller.abort();
  await untilIdle();
  const answer = await client.chat.completions.create({ ...ask, max_tokens: 1 });
  assert.equal(answer.choices[0].finish_reason, "length");
});

test("headers", async () => {
  const ask = { model, messages, max_tokens: 1 };
  const { response } = await client.chat.completions.create(ask).withResponse();
  assert.equal(response.headers.get("content-type"), "application/json");
  assert.ok(response.headers.get("x-request-id"));
  assert.ok(Number(response.headers.get("openai-processing-ms")) >= 0);
  const streamed = await client.chat.completions.create({ ...ask, stream: true }).asResponse();
  assert.equal(streamed.headers.get("content-type"), "text/event-stream; charset=utf-8");
  assert.equal(streamed.headers.get("cache-control"), "no-cache");
  assert.match(await streamed.text(), /data: \[DONE\]\n\n$/);
});
