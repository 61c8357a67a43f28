// One timing of llama.cpp (prebuilt, from the npm package node-llama-cpp) as one JSON object:
//   node llama.mjs MODEL PROMPT_FILE PROMPT_TOKENS DECODE_TOKENS THREADS
// Prefill is the evaluation of the prompt without generating; decode is greedy and does not stop.
import fs from "node:fs";
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

const [modelPath, promptFile, promptTokens, decodeTokens, threads] = process.argv.slice(2);
const nPrompt = Number(promptTokens), nDecode = Number(decodeTokens), nThreads = Number(threads);

const llama = await getLlama({
    gpu: false, build: "never", maxThreads: nThreads, logLevel: LlamaLogLevel.error
});
const model = await llama.loadModel({modelPath});
// Some four bytes a token: enough text for the prompt, and no more to tokenize than needed.
const text = fs.readFileSync(promptFile, "utf8").slice(0, nPrompt * 8 + 4096);
const tokens = model.tokenize(text).slice(0, nPrompt);
if (tokens.length < nPrompt) throw new Error(`${promptFile} has only ${tokens.length} tokens`);
const context = await model.createContext({
    contextSize: nPrompt + nDecode + 8,
    batchSize: 512,
    threads: nThreads,
    flashAttention: process.env.LLAMA_FLASH !== "0"
});
const sequence = context.getSequence();

const started = performance.now();
await sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(0, -1));
const prefilled = performance.now();

let decodeStarted, generated = 0;
for await (const _ of sequence.evaluate(tokens.slice(-1), {temperature: 0, yieldEogToken: true})) {
    // The first token comes with the prompt's last one: the clock starts after it.
    if (generated === 0) decodeStarted = performance.now();
    if (generated++ === nDecode) break;
}
const ended = performance.now();
console.log(JSON.stringify({
    prefill_tokens_per_second: (nPrompt - 1) / (prefilled - started) * 1000,
    decode_tokens_per_second: (generated - 1) / (ended - decodeStarted) * 1000,
    peak_rss_bytes: process.resourceUsage().maxRSS * 1024
}));
process.exit(0);
