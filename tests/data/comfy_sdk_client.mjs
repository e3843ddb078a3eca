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
// A workflow that works for a while, node by node. Whoever followed one job is shown previews of the next.
const nodes = {
  1: { class_type: "EmptyImage", inputs: { width: 96, height: 96, batch_size: 1, color: 5 } },
};
let last = "1";
for (let number = 100; number < 240; number++) {
  nodes[number] = { class_type: "ImageBlur", inputs: { image: [last, 0], blur_radius: 5, sigma: 2.0 } };
  last = String(number);
}
nodes[2] = { class_type: "SaveImage", inputs: { images: [last, 0], filename_prefix: "slow" } };
const slow = await client.submit(client.workflows.fromJson(nodes));
const previews = [];
for await (const event of slow.events()) if (event.kind === "preview") previews.push(event);

console.log(
  JSON.stringify({
    status: job.status,
    kinds: [...kinds].sort(),
    signature: Buffer.from(bytes).subarray(1, 4).toString("latin1"),
    reused,
    invalid,
    preview: Buffer.from(previews[0]?.data ?? []).subarray(0, 3).toString("hex"),
  }),
);
