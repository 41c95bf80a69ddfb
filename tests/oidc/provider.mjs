// A real OpenID provider for the tests: node-oidc-provider with its development pages.
//
// node provider.mjs PORT JWKS REDIRECT: JWKS is the private key set as JSON. Whoever logs in as
// "name.role.tenant" is that; the client "robot.role.tenant" has such tokens by its credentials.
import Provider from "oidc-provider";

const [port, jwks, redirect] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const claimsOf = (name) => {
  const [, role, tenant] = name.split(".");
  return { ...(role && { carrel_role: role }), ...(tenant && { carrel_tenant: tenant }) };
};
const robot = (client_id) => ({
  client_id,
  client_secret: "robots-secret-of-the-tests-0123456789",
  grant_types: ["client_credentials"],
  redirect_uris: [],
  response_types: [],
});

const provider = new Provider(issuer, {
  jwks: JSON.parse(jwks),
  clients: [
    {
      client_id: "carrel",
      client_secret: "the-secret-of-the-tests-0123456789",
      redirect_uris: [redirect],
    },
    ...["robot.user.billing", "robot.admin.billing", "robot", "robot.king.billing"].map(robot),
  ],
  cookies: { keys: ["only for tests"] },
  claims: { openid: ["sub", "carrel_role", "carrel_tenant"] },
  conformIdTokenClaims: false,
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...claimsOf(id) }) }),
  extraTokenClaims: (_, token) => claimsOf(token.clientId ?? ""),
  features: {
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({
        scope: "",
        audience: resource.replace("https://", ""),
        accessTokenTTL: 600,
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
});
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
