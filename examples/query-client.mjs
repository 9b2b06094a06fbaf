// A script with a client inside: asks a private service by its resource's name. Nothing but node:http is told about it.
import { get } from "node:http"
import { Sallyport } from "sallyport"

const [resource = "tickets"] = process.argv.slice(2)
const port = Number(process.env.PORT ?? 3000)
const client = await Sallyport.start({
  role: "client",
  name: process.env.NAME ?? "reporter",
  stateDir: process.env.STATE ?? "./state-client",
  token: process.env.TOKEN
})
try {
  const socket = await client.dial(resource, port)
  const body = await new Promise((resolve, reject) => {
    get(
      { host: resource, path: "/tickets", createConnection: () => socket, headers: { connection: "close" } },
      async (response) => {
        response.setEncoding("utf8")
        resolve((await response.toArray()).join(""))
      }
    ).on("error", reject)
  })
  console.log(body)
  console.log(JSON.stringify(await client.peers()))
} finally {
  await client.stop()
}
