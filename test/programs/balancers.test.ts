/** A relay behind the balancers and reverse proxies of Debian, set up as `docs/proxies.md` says. */
import { Redacted } from "effect"
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import net from "node:net"
import { join } from "node:path"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { makePublicCa } from "../suite/support/PublicCa.ts"
import { freePort } from "../support/Ports.ts"
import { have, Program, sallyport, until, World } from "./support/Programs.ts"

const HANG_MS = 120_000
const NGINX = { program: "nginx", apt: "nginx libnginx-mod-stream" }
const HAPROXY = { program: "haproxy", apt: "haproxy" }
const CADDY = { program: "caddy", apt: "caddy" }

/** From which a balancer connects to the relay, so that one relay can tell them apart. */
const SPEAKS_PROXY = "127.0.0.2"
const ENDS_TLS = "127.0.0.3"
const HOST = "localhost"

describe("a relay behind", () => {
  let world: World
  let ca: string
  let pem: string
  const programs: Array<Program> = []
  const fronts = { proxyProtocol: [SPEAKS_PROXY], behindProxy: { from: [ENDS_TLS, "127.0.0.1"] } }

  beforeAll(async () => {
    world = await World.start({ resources: [], relay: { advertise: { host: HOST }, ...fronts }, relayOnly: true })
    const made = await makePublicCa()
    ca = join(world.dir, "ca.pem")
    pem = join(world.dir, "both.pem")
    writeFileSync(ca, made.ca)
    writeFileSync(pem, `${made.leaf.cert}${Redacted.value(made.leaf.key)}`)
  })
  afterEach(({ task }) => {
    if (task.result?.state !== "fail") return
    world.tell()
    for (const { lines } of programs) process.stderr.write(`--- a balancer\n${lines.join("\n")}\n`)
  })
  afterAll(async () => {
    await world?.stop()
    await Promise.all(programs.map((program) => program.stop()))
  })

  /** Starts a balancer, and waits until it listens. */
  const balancer = async (name: string, args: ReadonlyArray<string>, port: number) => {
    const env = { PATH: `${process.env["PATH"]}:/usr/sbin:/sbin`, HOME: world.dir }
    const program = new Program(name, args, { env, cwd: world.dir })
    programs.push(program)
    await until(`${name} listens`, () =>
      new Promise<true | null>((resolve, reject) => {
        if (!program.running) reject(new Error(program.lines.join("\n")))
        const socket = net.connect(port, "127.0.0.1", () => resolve(true)).on("error", () => resolve(null))
        socket.on("connect", () => socket.destroy())
      }), HANG_MS)
  }

  const nginx = (name: string, body: string, port: number) => {
    const dir = join(world.dir, name)
    mkdirSync(dir)
    const temps = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((temp) =>
      `${temp}_temp_path ${dir}/${temp};`
    )
    const file = join(dir, "nginx.conf")
    writeFileSync(
      file,
      [
        "daemon off; master_process off;",
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;",
        `pid ${dir}/pid; error_log stderr; events {}`,
        body.replace("TEMPS", temps.join(" "))
      ].join("\n")
    )
    return balancer("nginx", ["-p", dir, "-c", file, "-e", "stderr"], port)
  }

  const haproxy = (name: string, body: string, port: number) => {
    const file = join(world.dir, `${name}.cfg`)
    const limits = "defaults\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  timeout tunnel 60s\n"
    writeFileSync(file, `${limits}${body}\n`)
    return balancer("haproxy", ["-db", "-f", file], port)
  }

  /** A node whose token says that the relay is at `port`, and that its TLS ends there (`proxied`) or at the relay. */
  const launch = async (name: string, port: number, proxied: boolean) => {
    const relay = world.configure("relay", { advertise: { host: HOST, https: port } })
    if (!proxied) {
      const { behindProxy: _, ...rest } = JSON.parse(readFileSync(relay, "utf8")) as Record<string, unknown>
      writeFileSync(relay, JSON.stringify(rest))
    }
    const token = (await world.token("client", name)).trim()
    const file = join(world.dir, `${name}.yaml`)
    writeFileSync(file, JSON.stringify({ role: "client", name, stateDir: `state/${name}`, token }))
    return { file, node: world.launch(name, file, { NODE_EXTRA_CA_CERTS: ca }) }
  }

  const signIn = async (name: string, port: number, proxied: boolean) => {
    const { node } = await launch(name, port, proxied)
    // Enrolment takes a whole link: what follows it is the same without the token.
    await until(`${name} is let in`, () => node.lines.some((line) => line.includes("\"enrolled\"")) || null, HANG_MS)
    node.kill("SIGKILL")
  }

  it.runIf(have(NGINX))("nginx stream, without and with the PROXY protocol", async () => {
    const [plain, proxied] = [await freePort(), await freePort()]
    const relay = `127.0.0.1:${world.ports.https}`
    await nginx(
      "stream",
      `stream { proxy_timeout 60s;
        server { listen 127.0.0.1:${plain}; proxy_pass ${relay}; }
        server { listen 127.0.0.1:${proxied}; proxy_pass ${relay}; proxy_protocol on; proxy_bind ${SPEAKS_PROXY}; } }`,
      proxied
    )
    await signIn("stream-plain", plain, false)
    await signIn("stream-proxy", proxied, false)
  })

  it.runIf(have(NGINX))("sends keepalives in time for a balancer with short timeouts", async () => {
    const port = await freePort()
    const relay = `127.0.0.1:${world.ports.https}`
    const server = `server { listen 127.0.0.1:${port}; proxy_timeout 3s; proxy_pass ${relay}; }`
    await nginx("short", `stream { ${server} }`, port)
    const { file, node } = await launch("short", port, false)
    await until(
      "it finds out",
      () => node.lines.some((line) => line.includes("closes connections that are idle")) || null,
      HANG_MS
    )
    await node.ready()
    const status = JSON.parse(String((await sallyport(["status", "--json", "--config", file])).out)) as {
      readonly signaling: { readonly keepaliveMs: number }
    }
    assert.isAtMost(status.signaling.keepaliveMs, 2_000)
    node.kill("SIGKILL")
  })

  it.runIf(have(HAPROXY))("works behind HAProxy in TCP mode with PROXY version 2", async () => {
    const port = await freePort()
    await haproxy(
      "tcp",
      `listen relay
  mode tcp
  bind 127.0.0.1:${port}
  server relay 127.0.0.1:${world.ports.https} send-proxy-v2 source ${SPEAKS_PROXY}`,
      port
    )
    await signIn("haproxy-tcp", port, false)
  })

  it.runIf(have(HAPROXY))("HAProxy that ends TLS", async () => {
    const port = await freePort()
    await haproxy(
      "http",
      `listen relay
  mode http
  option forwardfor
  bind 127.0.0.1:${port} ssl crt ${pem} alpn http/1.1
  server relay 127.0.0.1:${world.ports.https} source ${ENDS_TLS}`,
      port
    )
    await signIn("haproxy-http", port, true)
  })

  it.runIf(have(NGINX))("works behind nginx that terminates TLS, over HTTP and TLS", async () => {
    const [plain, again] = [await freePort(), await freePort()]
    const server = (port: number, to: string) =>
      `server { listen 127.0.0.1:${port} ssl; ssl_protocols TLSv1.3; ssl_certificate ${pem}; ssl_certificate_key ${pem};
        location / { proxy_pass ${to}; proxy_http_version 1.1; proxy_bind ${ENDS_TLS}; proxy_ssl_protocols TLSv1.3;
          proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
          proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; } }`
    const relay = `127.0.0.1:${world.ports.https}`
    await nginx(
      "http",
      `http { access_log off; TEMPS ${server(plain, `http://${relay}`)} ${server(again, `https://${relay}`)} }`,
      again
    )
    await signIn("nginx-http", plain, true)
    await signIn("nginx-https", again, true)
  })

  it.runIf(have(CADDY))("Caddy that ends TLS", async () => {
    const port = await freePort()
    const file = join(world.dir, "Caddyfile")
    writeFileSync(
      file,
      `{
  admin off
  auto_https disable_redirects
}
https://${HOST}:${port} {
  bind 127.0.0.1
  tls ${pem} ${pem}
  reverse_proxy 127.0.0.1:${world.ports.https}
}
`
    )
    await balancer("caddy", ["run", "--adapter", "caddyfile", "--config", file], port)
    await signIn("caddy", port, true)
  })
})
