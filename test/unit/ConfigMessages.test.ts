/** Twenty broken files: what the operator is told, to the letter, and that it is everything at once. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { readdirSync } from "node:fs"
import * as Config from "../../src/services/config/Config.ts"

const DIR = "test/fixtures/config"

/** Each line without the name of the file that it starts with. */
const EXPECTED: Readonly<Record<string, ReadonlyArray<string>>> = {
  "01-empty.yaml": [
    ":1:1: found nothing: the file is empty; expected a mapping of keys, role first; begin with a commented example from config/"
  ],
  "02-no-role.yaml": [
    ":1:1 role: the key is missing; expected one of relay, connector, client; write for example role: client",
    `:3:9 socks5: found the number 1080; expected the address where SOCKS5 listens, as "host:port"; write for example socks5: "127.0.0.1:1080"`
  ],
  "03-wrong-role.yaml": [
    `:1:7 role: found "conector"; expected one of relay, connector, client; did you mean connector?`
  ],
  "04-unknown-key.yaml": [
    ":5:1 sock5: unknown key sock5; expected socks5; correct the spelling",
    ":7:5 forwards[0].port: the key is missing; expected the resource's port: a whole number from 1 to 65535; write for example port: 80",
    ":7:52 forwards[0].prot: unknown key prot; expected port; correct the spelling"
  ],
  "05-key-of-another-role.yaml": [
    ":5:1 socks5: unknown key socks5; expected a key of role connector; remove it, since it belongs to role client",
    ":6:1 resources: unknown key resources; expected a key of role connector; remove it, since it belongs to role relay"
  ],
  "06-wrong-types.yaml": [
    ":2:7 name: found the number 17; expected a name: letters, digits, -, _ and dots between them, such as office-1, db_1 or web.corp; write for example name: office-1",
    ":3:11 stateDir: found a list; expected the path of a folder for keys and state; write for example stateDir: /var/lib/sallyport",
    `:5:10 listen.https: found the number 443; expected the address where HTTPS listens, as "host:port"; write for example https: "0.0.0.0:443"`,
    `:7:12 advertise: found "relay.example.com"; expected a mapping with host; write for example advertise: {host: relay.example.com}`,
    `:8:12 resources: found "intranet"; expected a list of resources; write for example resources: [{name: intranet, address: 10.0.0.5, tcp: [80]}]`
  ],
  "07-out-of-range.yaml": [
    ":4:13 udp.port: found the number 70000; expected the local UDP port, 0 for any: a whole number from 0 to 65535; write for example port: 41641",
    ":5:14 dataThreads: found the number 4; expected 1, since this version runs its data plane on one thread; write dataThreads: 1, or leave the key out",
    `:7:14 forwards[0].listen: found "127.0.0.1:99999", whose port is not 0 to 65535; expected the address where this forward listens, as "host:port"; write for example listen: "127.0.0.1:8080"`,
    ":7:59 forwards[0].port: found the number 0; expected the resource's port: a whole number from 1 to 65535; write for example port: 80"
  ],
  "08-bad-address.yaml": [
    `:5:10 listen.https: found "::1:443", whose IPv6 address is not in brackets; expected the address where HTTPS listens, as "host:port"; write for example https: "0.0.0.0:443"`,
    `:6:8 listen.udp: found "https://relay.example.com", which is a URL; expected the address where UDP listens, as "host:port"; write for example udp: "0.0.0.0:3478"`,
    `:8:9 advertise.host: found "https://relay.example.com", which is a URL; expected the public host name or IP address of this relay; write for example host: relay.example.com`,
    `:10:31 resources[0].address: found "10.0.0.500", which is not a valid IPv4 address; expected a host name, an IP address, a CIDR or *.NAME, without scheme or port; write for example address: intranet.local`
  ],
  "09-duplicate-names.yaml": [
    `:8:12 resources[1].name: the name "intranet" is taken by resources[0]; expected a name of its own for each resource; rename one of the two`
  ],
  "10-unknown-resource.yaml": [
    `:9:36 access[0].resources[0]: unknown resource "intranett"; expected one of intranet; did you mean intranet?`,
    `:10:34 access[1].resources[0]: unknown resource "printer"; expected one of intranet; correct the name, or add the resource`
  ],
  "11-duplicate-key.yaml": [
    ":5:1: found the key name a second time; expected each key once in a mapping; remove one of the two",
    ":6:1 carier: unknown key carier; expected carrier; correct the spelling"
  ],
  "12-syntax.yaml": [
    ":2:15: found a quote that is never closed; expected a second quote; close it on this line"
  ],
  "13-tab.yaml": [
    ":3:1: found a tab as indentation; expected spaces; replace the tab with spaces"
  ],
  "14-missing-keys.yaml": [
    ":1:1 name: the key is missing; expected a name: letters, digits, -, _ and dots between them, such as office-1, db_1 or web.corp; write for example name: office-1",
    ":1:1 stateDir: the key is missing; expected the path of a folder for keys and state; write for example stateDir: /var/lib/sallyport",
    ":1:1 advertise: the key is missing; expected a mapping with host; write for example advertise: {host: relay.example.com}",
    `:2:1 listen.udp: the key is missing; expected the address where UDP listens, as "host:port"; write for example udp: "0.0.0.0:3478"`,
    ":4:5 resources[0].name: the key is missing; expected a resource name: letters, digits, -, _ and dots between them, such as office-1, db_1 or web.corp; write for example name: intranet",
    `:4:5 resources[0]: found no port; expected at least one in tcp; write for example tcp: [80, "8000-8100"]`,
    ":6:5 access[0].resources: the key is missing; expected a list of resource names; write for example resources: [intranet]"
  ],
  "15-bad-ports.yaml": [
    ":5:19 advertise.host: found 0.0.0.0, which nobody can connect to; expected the host name or IP address that nodes use; write for example host: relay.example.com",
    `:7:42 resources[0].tcp[0]: found the number 0, which is outside 1 to 65535; expected a port such as 80 or a range such as "8000-8100"; write for example tcp: [80, "8000-8100"]`,
    `:7:45 resources[0].tcp[1]: found the number 80.5, which is no port; expected a port such as 80 or a range such as "8000-8100"; write for example tcp: [80, "8000-8100"]`,
    `:7:51 resources[0].tcp[2]: found "8100-8000", whose first port is above its last; expected a port such as 80 or a range such as "8000-8100"; write for example tcp: [80, "8000-8100"]`,
    `:7:64 resources[0].tcp[3]: found "http", which is no port; expected a port such as 80 or a range such as "8000-8100"; write for example tcp: [80, "8000-8100"]`,
    `:7:70 resources[0].tcp[4]: found "1-70000", which is outside 1 to 65535; expected a port such as 80 or a range such as "8000-8100"; write for example tcp: [80, "8000-8100"]`,
    `:8:5 resources[1]: found no port; expected at least one in tcp; write for example tcp: [80, "8000-8100"]`
  ],
  "16-secret.yaml": [
    `:2:7 name: found "***=", which is no name; expected a name: letters, digits, -, _ and dots between them, such as office-1, db_1 or web.corp; write for example name: office-1`,
    ":4:8 token: found a list; expected the token's text, {file: PATH} or {env: NAME}; write for example token: {file: token.txt}, with what `sallyport token create` printed in that file",
    `:5:19 telemetry.otlp: found "ftp://***@collector"; expected an http or https URL; write for example otlp: http://127.0.0.1:4318`,
    `:6:8 proxy: found text (not shown), which has the scheme socks4://, and only http, https and socks5 are supported; expected the URL of an HTTP, HTTPS or SOCKS 5 proxy, or none; write for example proxy: "http://proxy.example.com:3128"`
  ],
  "17-not-a-mapping.yaml": [
    ":1:1: found text (not shown); expected a mapping of keys, role first; begin with a commented example from config/"
  ],
  "18-remote-admin.yaml": [
    `:4:8 admin: found 0.0.0.0:9301, which other machines may reach; expected a loopback address, since the admin API asks for no password; write admin: "127.0.0.1:9301", or admin: {listen: "0.0.0.0:9301", allowRemote: true}`,
    ":5:9 socks5: 127.0.0.1:9301 is taken by admin; expected an address of its own for each listener; choose another port",
    `:7:72 forwards[0].protocol: found "udp"; expected tcp, since this version forwards no UDP; write protocol: tcp, or leave the key out`,
    ":8:14 forwards[1].listen: 127.0.0.1:8080 is taken by forwards[0].listen; expected an address of its own for each listener; choose another port"
  ],
  "19-long-state-dir.yaml": [
    `:3:11 stateDir: the path of the admin socket has 120 bytes; expected at most 103, the limit of unix sockets; use a shorter stateDir, or write for example admin: "unix:/run/sallyport.sock"`
  ],
  "20-placement-and-tls.yaml": [
    `:5:45 advertise.https: found "yes"; expected the public HTTPS port: a whole number from 1 to 65535; write for example https: 443`,
    ":6:1 tls.key: the key is missing; expected the path of a PEM private key; write for example key: privkey.pem",
    ":7:1 placement: no thread for relayForwarder; expected one thread for each actor; place each of signalingHub, relayForwarder once, or write placement: default",
    `:7:23 placement.control[0]: unknown actor "signalinghub"; expected one of signalingHub, relayForwarder; did you mean signalingHub?`,
    ":7:60 placement.relay[0]: actor signalingHub is placed twice; expected one thread for each actor; place each of signalingHub, relayForwarder once, or write placement: default",
    `:8:11 logLevel: found "verbose"; expected one of trace, debug, info, warn, error; write for example logLevel: info`
  ]
}

it("has an expectation for each broken file", () => {
  assert.deepStrictEqual(readdirSync(DIR).sort(), Object.keys(EXPECTED).sort())
  assert.strictEqual(Object.keys(EXPECTED).length, 20)
})

for (const [file, lines] of Object.entries(EXPECTED)) {
  it.effect(`reports every mistake of ${file}`, () =>
    Effect.gen(function*() {
      const path = `${DIR}/${file}`
      const error = yield* Effect.flip(Config.load(path))
      assert.deepStrictEqual(error.message.split("\n"), lines.map((line) => `${path}${line}`))
    }))
}
