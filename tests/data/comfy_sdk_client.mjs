// Comfy's own client for Node against a server: uploads a picture, runs a workflow on it, prints what came.
// COMFY_BASE_URL and COMFY_API_KEY say where the server is; the argument is the picture.
import { Comfy } from "@comfyorg/sdk";

const [picture] = process.argv.slice(2);
const client = new Comfy({ apiKey: process.env.COMFY_API_KEY });
const workflow = client.workflows.fromJson({
  1: { class_type: "LoadImage", inputs: { image: "?" } },
  2: { class_type: "SaveImage", inputs: { images: ["1", 0], filename_prefix: "node" } },
});
workflow.setInput("1", "image", client.assets.fromFile(picture));
const job = await client.submit(workflow, { idempotencyKey: "node-1" });
const kinds = new Set();
for await (const event of job.events()) kinds.add(event.kind);
await job.result();
const bytes = await job.outputs[0].toBytes();

let reused;
try {
  await client.submit(workflow, { idempotencyKey: "node-1" });
} catch (error) {
  reused = error.code;
}
let invalid;
try {
  await client.submit(client.workflows.fromJson({ 1: { class_type: "Nothing", inputs: {} } }));
} catch (error) {
  invalid = error.code;
}
console.log(
  JSON.stringify({
    status: job.status,
    kinds: [...kinds].sort(),
    signature: Buffer.from(bytes).subarray(1, 4).toString("latin1"),
    reused,
    invalid,
  }),
);
