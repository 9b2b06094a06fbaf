// A page's own script: reads from a private resource by its name. Nothing is installed; the path is WebRTC to the connector.
import { connect } from "sallyport/browser"

/** Returns what the resource answers. `token` is needed at the first visit only. */
export const read = async (url, token) => {
  const connection = await connect(token)
  try {
    const answer = await connection.fetch(url)
    const [peer] = await connection.peers()
    return { status: answer.status, text: await answer.text(), connector: peer.connector, rttMs: peer.rttMs }
  } catch (error) {
    // `code` tells why a flow was not opened; the message says what to do.
    if (error._tag !== "OpenFailed") throw error
    return { failed: error.code, text: error.message }
  } finally {
    await connection.close()
  }
}
