// Issues tokens of the practice service `token-api`: the example of a plugin that is not written in
// Rust. Against the contract in wit/ directly; there is no SDK for JavaScript.

import { Request, address } from "claviger:egress/http@0.1.0";

// The compiler makes a class of each resource with methods, and then looks for one of this name for
// what `takeSecret` returns, which has none (ComponentizeJS, issue 221). Its bindings have a global
// object of their own, which is reached through a class of theirs.
Object.defineProperty(Object.getPrototypeOf(Request.prototype), "import_secrets_0_1_0$Secret", {
  value: class Secret {},
});

// All that `revoke` needs: the intent's own name upstream.
const nameOf = (intent) => `js-token-${intent}`;

const failure = (kind, message, requestSent) => ({
  kind,
  code: undefined,
  message,
  requestSent,
  retryAfterMs: undefined,
});

// Deletes a token, or finds that there is none.
function remove(name) {
  const request = new Request("api", "DELETE");
  request.path("/v1/tokens/by-name/");
  request.segment(name);
  const status = request.send().status();
  if (status !== 404 && (status < 200 || status > 299)) {
    throw failure("other", `the service answered ${status} to a deletion`, true);
  }
}

function required(response, location) {
  const value = response.read(location);
  if (value === undefined) {
    throw failure("other", `the answer has no value at ${location}`, true);
  }
  return value;
}

export const provider = {
  validateConfig() {
    return [];
  },

  issue(issue, lease) {
    const name = nameOf(issue.intent());
    // A repeated call must leave one token: what an earlier one made goes first.
    remove(name);
    const request = new Request("api", "POST");
    request.path("/v1/tokens");
    request.header("content-type", "application/json");
    const body = {
      name,
      scopes: JSON.parse(issue.parameters()).scopes,
      ttl_secs: Number(issue.expiresAt() - issue.now()),
    };
    request.value(JSON.stringify(body), "raw");
    const answer = request.send();
    if (answer.status() !== 201) {
      throw failure("other", `the service answered ${answer.status()} to a creation`, true);
    }
    lease.setField("url", address("api"));
    lease.setSecret("token", answer.takeSecret("/secret"));
    lease.setHandle(required(answer, "/id"));
    lease.setJoinKey("token_name", name);
    const expiresAt = BigInt(required(answer, "/expires_at"));
    lease.setExpiresAt(expiresAt < issue.expiresAt() ? expiresAt : issue.expiresAt());
  },

  revoke(revoke) {
    remove(nameOf(revoke.intent()));
  },
};
