// A minimal client of the Runtime API, because AWS's own client for Node must be compiled on installation.

import { Agent, request } from "node:http";
import { answer } from "./auditor.mjs";

const agent = new Agent({ keepAlive: true });
const invocation = `http://${process.env.AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation`;

function call(method, path, body) {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
    const sent = request(`${invocation}/${path}`, { method, agent, headers }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("end", () => resolve({ headers: response.headers, body: Buffer.concat(chunks) }));
      response.on("error", reject);
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

async function serve() {
  for (;;) {
    const { headers, body } = await call("GET", "next");
    const requestId = headers["lambda-runtime-aws-request-id"];
    const context = { requestId, functionArn: headers["lambda-runtime-invoked-function-arn"] };
    try {
      const answered = await answer(JSON.parse(body), context);
      await call("POST", `${requestId}/response`, JSON.stringify(answered));
    } catch (error) {
      console.error(error);
      await call("POST", `${requestId}/error`, JSON.stringify({ errorType: error.name, errorMessage: error.message }));
    }
  }
}

serve();
