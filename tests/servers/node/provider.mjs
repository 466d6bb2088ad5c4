// A real OpenID provider (npm `oidc-provider`) for tests:
//   node provider.mjs MODULES PORT KEYS FOLDER
// KEYS are the names of its signing keys, of which the first signs; they are kept in FOLDER. Ends
// with its input.
import { generateKeyPairSync } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [modules, port, names, folder] = process.argv.slice(2);
const load = (file) => import(pathToFileURL(`${modules}/node_modules/${file}`));
const { Provider } = await load('oidc-provider/lib/index.js');
const { createLocalJWKSet, jwtVerify } = await load('jose/dist/webapi/index.js');

// RS256 for one, ES256 for every other: what providers sign with by default, and what they should.
function key(name) {
  const file = `${folder}/${name}.jwk`;
  if (!existsSync(file)) {
    const rsa = name.startsWith('rsa');
    const pair = rsa
      ? generateKeyPairSync('rsa', { modulusLength: 2048 })
      : generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const jwk = pair.privateKey.export({ format: 'jwk' });
    const alg = rsa ? 'RS256' : 'ES256';
    writeFileSync(file, JSON.stringify({ ...jwk, kid: name, alg, use: 'sig' }));
  }
  return JSON.parse(readFileSync(file));
}

// Everybody who may sign in, with whatever password.
const GROUPS = { ada: ['payments', 'oncall'], bob: ['support'] };

// Jobs of GitHub Actions, by the subject of their tokens, and what else these say of them.
const job = (ref) => ({ repository: 'acme/shop', repository_id: '4711', ref, event_name: 'push' });
const JOBS = {
  'repo:acme/shop:ref:refs/heads/main': job('refs/heads/main'),
  'repo:acme/shop:pull_request': job('refs/pull/7/merge'),
};

const issuer = `http://127.0.0.1:${port}`;
const keys = names.split(',').map(key);
const alg = keys[0].alg;
const exchange = 'urn:ietf:params:oauth:grant-type:token-exchange';
const client = (client_id, grant_types, more = {}) => ({
  client_id,
  client_secret: `secret-of-${client_id}`,
  grant_types,
  redirect_uris: [],
  response_types: [],
  id_token_signed_response_alg: alg,
  ...more,
});

const provider = new Provider(issuer, {
  jwks: { keys },
  clients: [
    client('ci-agent', ['client_credentials']),
    client('other-agent', ['client_credentials']),
    ...Object.keys(JOBS).map((subject) => client(subject, ['client_credentials'])),
    client('exchanger', [exchange]),
    client('claviger', ['authorization_code'], {
      redirect_uris: [`${issuer}/done`],
      response_types: ['code'],
    }),
  ],
  findAccount: (_, login) => ({
    accountId: login,
    claims: () => ({ sub: login, groups: GROUPS[login], email: `${login}@corp.example` }),
  }),
  claims: { openid: ['sub', 'groups', 'email'] },
  conformIdTokenClaims: false,
  pkce: { required: () => false },
  extraTokenClaims: (ctx) => ctx.oidc.extra ?? JOBS[ctx.oidc.client.clientId],
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({
        scope: 'agents',
        audience: resource.replace('urn:', ''),
        accessTokenTTL: 300,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg } },
      }),
    },
  },
});

// RFC 8693: an engineer's ID token and an agent's token become one that names both.
const published = createLocalJWKSet({ keys: keys.map(({ d, p, q, dp, dq, qi, ...rest }) => rest) });
provider.registerGrantType(
  exchange,
  async (ctx) => {
    const { params, client: asking } = ctx.oidc;
    const verified = async (token) => (await jwtVerify(token, published, { issuer })).payload;
    const subject = await verified(params.subject_token);
    const actor = await verified(params.actor_token);
    const { AccessToken } = provider;
    ctx.oidc.extra = { act: { sub: actor.sub }, groups: subject.groups, email: subject.email };
    const token = new AccessToken({
      accountId: subject.sub,
      client: asking,
      scope: 'agents',
      gty: 'token_exchange',
      resourceServer: new provider.ResourceServer('urn:claviger', {
        scope: 'agents',
        audience: 'claviger',
        accessTokenTTL: 300,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg } },
      }),
    });
    ctx.oidc.entity('AccessToken', token);
    ctx.body = {
      access_token: await token.save(),
      issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      token_type: 'Bearer',
    };
  },
  ['subject_token', 'subject_token_type', 'actor_token', 'actor_token_type', 'audience'],
);

provider.on('server_error', (_, error) => console.error(error));
provider.on('grant.error', (_, error) => console.error(error));
provider.listen(Number(port), '127.0.0.1', () => console.log('listening'));
createInterface({ input: process.stdin }).on('close', () => process.exit());
