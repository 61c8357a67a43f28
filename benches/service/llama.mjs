// The same load on llama.cpp (npm package node-llama-cpp), in its own process and without HTTP: N
// sequences of one context, batched by it, each with a prompt of its own:
//   node llama.mjs MODEL TEXT_FILE CLIENTS PROMPT_TOKENS DECODE_TOKENS THREADS
import fs from "node:fs";
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

const [modelPath, file, ...numbers] = process.argv.slice(2);
const [nClients, nPrompt, nDecode, nThreads] = numbers.map(Number);
const llama = await getLlama({
    gpu: false, build: "never", maxThreads: nThreads, logLevel: LlamaLogLevel.error
});
const model = await llama.loadModel({modelPath});
const tokens = model.tokenize(fs.readFileSync(file, "utf8").slice(0, nClients * nPrompt * 6));
const context = await model.createContext({
    contextSize: nPrompt + nDecode + 8, sequences: nClients, batchSize: 512, threads: nThreads,
    flashAttention: true
});
const times = Array.from({length: nClients}, () => []);
const begun = performance.now();
await Promise.all(times.map(async (out, i) => {
    const prompt = tokens.slice(i * nPrompt, (i + 1) * nPrompt);
    for await (const _ of context.getSequence().evaluate(prompt, {temperature: 1, yieldEogToken: true})) {
        out.push(performance.now());
        if (out.length === nDecode) break;
    }
}));
const seconds = (a, b) => (b - a) / 1000;
const first = times.map((out) => seconds(begun, out[0]));
const between = times.flatMap((out) => out.slice(1).map((t, i) => seconds(out[i], t)));
const share = (values, q) => {
    const sorted = [...values].sort((a, b) => a - b);
    return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
};
const ended = Math.max(...times.map((out) => out.at(-1)));
const allBegun = Math.max(...times.map((out) => out[0]));
const firstEnd = Math.min(...times.map((out) => out.at(-1)));
const together = times.flat().filter((t) => allBegun < t && t <= firstEnd).length;
console.log(JSON.stringify({
    clients: nClients, tokens: times.flat().length, seconds: seconds(begun, ended),
    tokens_per_second: times.flat().length / seconds(begun, ended),
    decode_tokens_per_second: firstEnd > allBegun ? together / seconds(allBegun, firstEnd) : null,
    first_token_p50: share(first, 0.5), first_token_p99: share(first, 0.99),
    between_p50: share(between, 0.5), between_p99: share(between, 0.99)
}));
process.exit(0);
