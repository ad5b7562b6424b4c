// The package `ollama` for Node: which models there are, one shown, and a chat as a stream.
import { Ollama } from "ollama";

const { LLM_URL, LLM_KEY, LLM_MODEL } = process.env;
const client = new Ollama({ host: LLM_URL, headers: { Authorization: `Bearer ${LLM_KEY}` } });

for (const { name } of (await client.list()).models) console.log(name);
const { capabilities } = await client.show({ model: LLM_MODEL });
console.log(`${LLM_MODEL} can ${capabilities.join(", ")}`);

const messages = [{ role: "user", content: "What is the capital of France?" }];
const stream = await client.chat({
  model: LLM_MODEL, messages, stream: true, options: { temperature: 0 },
});
let pieces = 0;
let last;
for await (const part of stream) {
  process.stdout.write(part.message.content);
  if (part.message.content) pieces += 1;
  last = part;
}
console.log(`\n${pieces} pieces, ${last.prompt_eval_count} + ${last.eval_count} tokens`);
