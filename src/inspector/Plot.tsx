/** Plot of one figure over time, drawn by uPlot. */
import { useEffect, useRef } from "preact/hooks"
import UPlot from "uplot"

export interface Sample {
  readonly at: number
  /** Value at this time. `null` leaves a gap in the line. */
  readonly value: number | null
}

export interface Props {
  /** Title of the plot, for people who cannot see it. */
  readonly label: string
  readonly samples: ReadonlyArray<Sample>
  readonly unit: string
  /** Upper end of the axis. If not given, it is a little above the highest value. */
  readonly top?: number
}

const HEIGHT_PX = 110

export const Plot = ({ label, samples, top, unit }: Props) => {
  const place = useRef<HTMLDivElement>(null)
  const plot = useRef<UPlot | null>(null)
  useEffect(() => {
    const element = place.current
    if (element === null) return
    const scheme = matchMedia("(prefers-color-scheme: dark)")
    const draw = () => {
      const data = plot.current?.data ?? [[], []]
      plot.current?.destroy()
      plot.current = new UPlot(optionsOf(element, unit, top), data, element)
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
  useEffect(() => plot.current?.setData([samples.map(({ at }) => at / 1000), samples.map(({ value }) => value)]), [
    samples
  ])
  const known = samples.flatMap(({ value }) => value === null ? [] : [value])
  const range = known.length === 0
    ? "not measured yet"
    : `from ${short(Math.min(...known))} to ${short(Math.max(...known))} ${unit}`
  return <div class="plot" ref={place} role="img" aria-label={`${label}, ${range}`} />
}

const short = (value: number): number => Number(value.toFixed(2))

const optionsOf = (element: HTMLElement, unit: string, top?: number): UPlot.Options => {
  const css = getComputedStyle(document.documentElement)
  const colour = (name: string) => css.getPropertyValue(name).trim()
  const axis = { stroke: colour("--soft"), font: "11px system-ui, sans-serif", ticks: { show: false } }
  return {
    width: element.clientWidth,
    height: HEIGHT_PX,
    legend: { show: false },
    cursor: { show: false },
    scales: { y: { range: (_, __, max) => [0, top ?? Math.max(1, max * 1.2)] } },
    axes: [
      {
        ...axis,
        grid: { show: false },
        size: 24,
        space: 80,
        values: (_, at) => at.map((s) => new Date(s * 1000).toLocaleTimeString("en-GB"))
      },
      {
        ...axis,
        grid: { stroke: colour("--line"), width: 1 },
        size: 48,
        values: (_, at) => at.map((v) => `${v} ${unit}`)
      }
    ],
    series: [{}, { stroke: colour("--accent"), width: 1.5, spanGaps: false, points: { size: 3 } }]
  }
}
