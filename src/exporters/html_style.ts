/** The style sheet of pages: colours as variables of the reader's scheme, which charts use as well. */
import { SCHEMES } from "../charts/style.ts";

/** What only the page needs, beside the colours of charts. */
const PAGE_COLOURS = {
  light: { card: "#f6f7f9", line: "#dde1e6", good: "#00724f", fair: "#8a5a00", bad: "#b03a00" },
  dark: { card: "#1f2329", line: "#343a43", good: "#3ddaa8", fair: "#f0b93a", bad: "#ff9d66" },
} as const;

function variables(scheme: "light" | "dark"): string {
  const { series, ...colours } = SCHEMES[scheme];
  return [
    ...series.map((colour, i) => `--series-${i + 1}:${colour}`),
    ...Object.entries({ ...colours, ...PAGE_COLOURS[scheme] }).map(([name, colour]) => `--${name}:${colour}`),
  ].join(";");
}

/** CSS of a page. */
export const STYLE = `
:root{color-scheme:light dark;${variables("light")}}
@media (prefers-color-scheme:dark){:root{${variables("dark")}}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","DejaVu Sans",sans-serif}
main{max-width:1000px;margin:0 auto;padding:32px 20px 64px}
.brand{margin:0;color:var(--muted);font-size:13px;letter-spacing:.08em;text-transform:uppercase}
h1{margin:2px 0 4px;font-size:30px;line-height:1.2;overflow-wrap:anywhere}
h2{margin:44px 0 12px;font-size:21px;border-bottom:1px solid var(--line);padding-bottom:6px}
h3{margin:0 0 8px;font-size:16px}
.subtitle{margin:0;color:var(--muted);overflow-wrap:anywhere}
.verdict{margin:22px 0;padding:12px 18px;background:var(--card);border-left:5px solid var(--muted);border-radius:4px;font-size:18px}
.verdict p{margin:4px 0}
.verdict.good{border-color:var(--good)}.verdict.fair{border-color:var(--fair)}.verdict.bad{border-color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(270px,1fr));gap:12px;margin:0 0 22px}
.tile{padding:12px 14px;background:var(--card);border:1px solid var(--line);border-radius:6px}
.tile dt{color:var(--muted);font-size:13px}
.tile dd{margin:0;font-size:25px;font-weight:600;font-variant-numeric:tabular-nums;line-height:1.3}
.tile .note{font-size:13px;font-weight:400;color:var(--muted)}
.tile.good dd:not(.note){color:var(--good)}.tile.fair dd:not(.note){color:var(--fair)}.tile.bad dd:not(.note){color:var(--bad)}
.warning{margin:12px 0;padding:10px 16px;border:1px solid var(--fair);border-left-width:5px;border-radius:4px}
.warning p{margin:3px 0;overflow-wrap:anywhere}
figure{margin:22px 0;padding:16px;border:1px solid var(--line);border-radius:6px}
figcaption,.caption{margin-top:10px;color:var(--muted);font-size:14px;overflow-wrap:anywhere}
.chart{display:block;width:100%;height:auto;overflow:visible}
.chart text{font-family:inherit}
.narrow{display:none}
.scroll{overflow-x:auto;margin:12px 0}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
.data{width:100%}
.data th,.data td{padding:6px 10px;text-align:left;white-space:nowrap;border-bottom:1px solid var(--line)}
.data thead th{color:var(--muted);font-weight:600;border-bottom:2px solid var(--line)}
.data .number{text-align:right}
.data tr.chosen td{font-weight:600;background:var(--card)}
.data tr.good td:first-child{box-shadow:inset 3px 0 var(--good)}
.data tr.fair td:first-child{box-shadow:inset 3px 0 var(--fair)}
.data tr.bad td:first-child{box-shadow:inset 3px 0 var(--bad)}
.facts th{padding:4px 16px 4px 0;text-align:left;vertical-align:top;color:var(--muted);font-weight:400;white-space:nowrap}
.facts td{padding:4px 0;overflow-wrap:anywhere}
ul{padding-left:20px}li{margin:4px 0;overflow-wrap:anywhere}
pre{padding:12px 14px;background:var(--card);border:1px solid var(--line);border-radius:6px;font:13px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow:auto;max-height:480px}
pre.command{white-space:pre-wrap;overflow-wrap:anywhere}
details{margin-top:16px}summary{cursor:pointer;color:var(--muted)}
@media (max-width:700px){main{padding:20px 14px 48px}h1{font-size:23px}.wide{display:none}.narrow{display:block}figure{padding:12px 8px}.verdict{font-size:16px}.tile dd{font-size:21px}.tiles{grid-template-columns:repeat(auto-fit,minmax(130px,1fr))}}
@media print{main{max-width:none;padding:0}figure,.tile{break-inside:avoid}details{display:none}}
`;
