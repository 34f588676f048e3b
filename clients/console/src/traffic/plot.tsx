import 'uplot/dist/uPlot.min.css';
import { useEffect, useRef, type ReactNode } from 'react';
import uPlot from 'uplot';
import { useTheme } from '../lib/theme.js';
import type { Labels } from './labels.js';
import type { Slot } from './points.js';
import { stepAfter, type Step } from './ranges.js';

export interface Line {
  label: string;
  value(slot: Slot): number;
}

export interface PlotProps {
  slots: readonly Slot[];
  lines: readonly Line[];
  step: Step;
  labels: Labels;
  /** Writes a value of the vertical axis. */
  format(value: number): string;
  /** Whether values are counts, between which there is nothing. */
  whole: boolean;
  selected: number | undefined;
  onSelect(slot: number | undefined): void;
}

interface Colours {
  text: string;
  grid: string;
  font: string;
  band: string;
  lines: readonly string[];
  fill: string;
}

/** The colours of the style sheets as they are now: a canvas knows no properties, so elements have them. */
function coloursOf(root: HTMLElement): Colours {
  const own = getComputedStyle(root);
  const colour = (name: string): string => getComputedStyle(root.querySelector(`.${name}`) ?? root).color;
  return {
    text: own.color,
    grid: own.borderTopColor,
    font: `12px ${own.fontFamily}`,
    band: colour('traffic-band'),
    lines: [colour('traffic-first'), colour('traffic-second')],
    fill: colour('traffic-fill'),
  };
}

/** The steps of each line; the last one is as wide as the others, so it ends at a point of its own. */
function dataOf({ slots, lines, step }: PlotProps): uPlot.AlignedData {
  const last = slots.at(-1);
  const ends = last ? [stepAfter(last.at, step)] : [];
  return [
    [...slots.map(({ at }) => at), ...ends],
    ...lines.map(({ value }) => [...slots.map(value), ...(last ? [value(last)] : [])]),
  ];
}

const counts = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000];

function optionsOf(props: { current: PlotProps }, colours: { current: Colours }, size: { width: number; height: number }): uPlot.Options {
  const { step, whole, labels, lines, slots } = props.current;
  const utc = step === 'day' || step === 'month';
  const line = { stroke: () => colours.current.grid, width: 1 };
  const axis: uPlot.Axis = { stroke: () => colours.current.text, grid: line, ticks: { ...line, size: 4 }, font: colours.current.font, gap: 4 };
  const stepped = uPlot.paths.stepped?.({ align: 1 });
  return {
    ...size,
    ms: 1,
    padding: [8, 24, 0, 0],
    legend: { show: false },
    cursor: { show: false },
    tzDate: (at) => (utc ? uPlot.tzDate(new Date(at), 'Etc/UTC') : new Date(at)),
    scales: {
      x: { time: true, range: (_, min, max) => [min, max] },
      y: { range: (_, __, max) => [0, Math.max(max * 1.08, whole ? 2 : 1000)] },
    },
    series: [
      {},
      ...lines.map((_, i): uPlot.Series => ({
        stroke: () => colours.current.lines[i] ?? '',
        ...(i === 0 ? { fill: () => colours.current.fill } : { dash: [5, 3] }),
        ...(stepped && { paths: stepped }),
        width: 2,
        points: { show: false },
      })),
    ],
    axes: [
      {
        ...axis,
        size: 26,
        space: 64,
        values: (_, splits, __, ___, apart) => splits.map((at) => labels.tick(at, apart)),
        // Months differ in length, so they are marked where they begin.
        ...(step === 'month' && { splits: (plot: uPlot) => slots.filter((_, i) => i % Math.ceil((slots.length * 80) / plot.width) === 0).map(({ at }) => at) }),
      },
      {
        ...axis,
        space: 36,
        ...(whole && { incrs: counts }),
        values: (_, splits) => splits.map((value) => props.current.format(value)),
        size: (plot, values) => {
          plot.ctx.font = colours.current.font;
          // The longest text of a range is no wider than this, so that the axis keeps its place.
          return Math.ceil(Math.max(40, ...(values ?? []).map((text) => plot.ctx.measureText(text).width))) + 14;
        },
      },
    ],
    hooks: {
      drawClear: [
        (plot) => {
          const { selected, slots, step } = props.current;
          const slot = selected === undefined ? undefined : slots[selected];
          if (!slot) return;
          const [left, right] = [plot.valToPos(slot.at, 'x', true), plot.valToPos(stepAfter(slot.at, step), 'x', true)];
          plot.ctx.fillStyle = colours.current.band;
          plot.ctx.fillRect(left, plot.bbox.top, Math.max(right - left, 2), plot.bbox.height);
        },
      ],
    },
  };
}

/** Draws steps of usage. It is loaded when somebody looks at a chart. */
export default function Plot(given: PlotProps): ReactNode {
  const root = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(undefined);
  const props = useRef(given);
  props.current = given;
  const colours = useRef<Colours>(undefined as unknown as Colours);
  const theme = useTheme();
  const { slots, step, labels, lines, whole, selected } = given;

  useEffect(() => {
    const element = root.current;
    if (!element) return;
    colours.current = coloursOf(element);
    const made = new uPlot(optionsOf(props, colours, { width: element.clientWidth, height: element.clientHeight }), dataOf(props.current), element);
    plot.current = made;
    const sizes = new ResizeObserver(() => {
      if (element.clientWidth > 0) made.setSize({ width: element.clientWidth, height: element.clientHeight });
    });
    sizes.observe(element);
    const move = ({ clientX }: PointerEvent): void => {
      const { left } = made.over.getBoundingClientRect();
      const at = made.posToVal(clientX - left, 'x');
      const index = props.current.slots.findLastIndex((slot) => slot.at <= at);
      props.current.onSelect(index < 0 ? undefined : index);
    };
    const leave = ({ pointerType }: PointerEvent): void => {
      // A finger leaves what it has tapped; what it has chosen stays.
      if (pointerType === 'mouse') props.current.onSelect(undefined);
    };
    element.addEventListener('pointermove', move);
    element.addEventListener('pointerdown', move);
    element.addEventListener('pointerleave', leave);
    return () => {
      sizes.disconnect();
      element.removeEventListener('pointermove', move);
      element.removeEventListener('pointerdown', move);
      element.removeEventListener('pointerleave', leave);
      made.destroy();
      plot.current = undefined;
    };
    // Another language or kind of range has other axes.
  }, [labels, step, lines.length, whole, step === 'month' ? slots[0]?.at : undefined]);

  useEffect(() => plot.current?.setData(dataOf(props.current)), [slots, lines]);
  useEffect(() => plot.current?.redraw(false, false), [selected]);
  useEffect(() => {
    const repaint = (): void => {
      if (!root.current) return;
      colours.current = coloursOf(root.current);
      plot.current?.redraw(false, false);
    };
    repaint();
    const system = matchMedia('(prefers-color-scheme: dark)');
    system.addEventListener('change', repaint);
    return () => system.removeEventListener('change', repaint);
  }, [theme]);

  return (
    <div ref={root} className="traffic-plot">
      {['traffic-first', 'traffic-second', 'traffic-fill', 'traffic-band'].map((name) => (
        <i key={name} className={name} hidden />
      ))}
    </div>
  );
}
