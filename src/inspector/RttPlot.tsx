/** RTT over the time that the page has been open, drawn by uPlot. */
import { useEffect, useRef } from "preact/hooks"
import UPlot from "uplot"
import { ms } from "./Text.ts"

export interface Sample {
  readonly at: number
  readonly rttMs: number | null
}

const HEIGHT_PX = 110

export const RttPlot = ({ peer, samples }: { readonly peer: string; readonly samples: ReadonlyArray<Sample> }) => {
  const place = useRef<HTMLDivElement>(null)
  const plot = useRef<UPlot | null>(null)
  useEffect(() => {
    const element = place.current
    if (element === null) return
    const scheme = matchMedia("(prefers-color-scheme: dark)")
    const draw = () => {
      const data = plot.current?.data ?? [[], []]
      plot.current?.destroy()
      plot.current = new UPlot(optionsOf(element), data, element)
    }
    draw()
    scheme.addEventListener("change", draw)
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT_PX }))
    resized.observe(element)
    return () => {
      resized.disconnect()
      scheme.removeEventListener("change", draw)
      plot.current?.destroy()
      plot.current = null
    }
  }, [])
  useEffect(() => plot.current?.setData([samples.map(({ at }) => at / 1000), samples.map(({ rttMs }) => rttMs)]), [
    samples
  ])
  const known = samples.flatMap(({ rttMs }) => rttMs === null ? [] : [rttMs])
  const range = known.length === 0 ? "not measured yet" : `from ${ms(Math.min(...known))} to ${ms(Math.max(...known))}`
  return <div class="plot" ref={place} role="img" aria-label={`Round trip to ${peer}, ${range}`} />
}

const optionsOf = (element: HTMLElement): UPlot.Options => {
  const css = getComputedStyle(document.documentElement)
  const colour = (name: string) => css.getPropertyValue(name).trim()
  const axis = { stroke: colour("--soft"), font: "11px system-ui, sans-serif", ticks: { show: false } }
  return {
    width: element.clientWidth,
    height: HEIGHT_PX,
    legend: { show: false },
    cursor: { show: false },
    scales: { y: { range: (_, __, max) => [0, Math.max(1, max * 1.2)] } },
    axes: [
      {
        ...axis,
        grid: { show: false },
        size: 24,
        space: 80,
        values: (_, at) => at.map((s) => new Date(s * 1000).toLocaleTimeString("en-GB"))
      },
      { ...axis, grid: { stroke: colour("--line"), width: 1 }, size: 48, values: (_, at) => at.map((v) => `${v} ms`) }
    ],
    series: [{}, { stroke: colour("--accent"), width: 1.5, spanGaps: false, points: { show: false } }]
  }
}
