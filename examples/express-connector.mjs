// An Express service with a connector inside: clients reach it by name through the relay's network, and it has no inbound port
// but one on loopback.
import express from "express"
import { Sallyport } from "sallyport"

const port = Number(process.env.PORT ?? 3000)
const app = express()
app.get("/tickets", (_request, response) => response.json([{ id: 1, title: "Printer on fire" }]))
const server = app.listen(port, "127.0.0.1")

const connector = await Sallyport.start({
  role: "connector",
  name: process.env.NAME ?? "tickets-service",
  stateDir: process.env.STATE ?? "./state-connector",
  token: process.env.TOKEN
})
console.log("ready")

process.on("SIGTERM", async () => {
  await connector.stop()
  server.close()
})
