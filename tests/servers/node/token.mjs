// Fetches a token as its owner would, and prints it:
//   node token.mjs ISSUER workload CLIENT AUDIENCE
//   node token.mjs ISSUER engineer LOGIN
//   node token.mjs ISSUER exchange   (the two tokens come in two lines of input)
import { readFileSync } from 'node:fs';

const [issuer, kind, ...rest] = process.argv.slice(2);

async function token(client, form) {
  // RFC 6749, section 2.3.1: each part is encoded by itself.
  const parts = [client, `secret-of-${client}`].map(encodeURIComponent);
  const basic = Buffer.from(parts.join(':')).toString('base64');
  const answer = await fetch(`${issuer}/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${basic}` },
    body: new URLSearchParams(form),
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(JSON.stringify(body));
  return body;
}

// A browser in small: follows redirects within the provider and keeps its cookies.
async function signIn(login) {
  const jar = new Map();
  const visit = async (url, form) => {
    const answer = await fetch(new URL(url, issuer), {
      method: form ? 'POST' : 'GET',
      body: form && new URLSearchParams(form),
      redirect: 'manual',
      headers: { cookie: [...jar].map(([name, value]) => `${name}=${value}`).join('; ') },
    });
    for (const line of answer.headers.getSetCookie()) {
      const [name, value] = line.split(';')[0].split('=');
      jar.set(name, value);
    }
    return answer.headers.get('location');
  };
  const redirect_uri = `${issuer}/done`;
  const query = new URLSearchParams({
    client_id: 'claviger', response_type: 'code', scope: 'openid', redirect_uri,
  });
  let at = await visit(`/auth?${query}`);
  at = await visit(at, { prompt: 'login', login, password: 'any' });
  at = await visit(at);
  if (!at.startsWith(redirect_uri)) {
    at = await visit(at, { prompt: 'consent' });
    at = await visit(at);
  }
  const code = new URL(at).searchParams.get('code');
  return token('claviger', { grant_type: 'authorization_code', code, redirect_uri });
}

const kinds = {
  workload: async ([client, audience]) =>
    (await token(client, {
      grant_type: 'client_credentials', scope: 'agents', resource: `urn:${audience}`,
    })).access_token,
  engineer: async ([login]) => (await signIn(login)).id_token,
  exchange: async () => {
    const [subject_token, actor_token] = readFileSync(0, 'utf8').split('\n');
    const type = 'urn:ietf:params:oauth:token-type:jwt';
    return (await token('exchanger', {
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      subject_token, actor_token, subject_token_type: type, actor_token_type: type,
    })).access_token;
  },
};
console.log(await kinds[kind](rest));
