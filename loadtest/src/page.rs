//! The report as one page for browsers: text, tables and plots, nothing to be fetched, no scripts.
//!
//! Pure.

mod masters;
mod plot;

use crate::report::{Phase, Report};
use crate::series::{ProcessSample, Sample, Series};
use plot::{Axis, Line, Plot, Style};

/// Colours of lines, told apart with colour-blind eyes, on light and dark ground.
mod colour {
    pub const BLUE: &str = "#3b7dd8";
    pub const ORANGE: &str = "#d9822b";
    pub const GREY: &str = "#8a8f98";
    pub const RED: &str = "#c8434d";
}

const STYLE: &str = "
:root { color-scheme: light dark; --ground: #fff; --ink: #1d2127; --faint: #8a8f98; --rule: #d9dce1; }
@media (prefers-color-scheme: dark) { :root { --ground: #16191d; --ink: #e4e6ea; --rule: #3a3f47; } }
body { background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 0.2rem; }
p { max-width: 46rem; } .faint { color: var(--faint); }
.figures { display: flex; flex-wrap: wrap; gap: 0.8rem 2.4rem; margin: 1.2rem 0; } .figures b { display: block; font-size: 1.5rem; }
.bad { color: #c8434d; } pre { overflow-x: auto; border: 1px solid var(--rule); padding: 0.8rem; font-size: 13px; line-height: 1.35; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .grid { stroke: var(--rule); stroke-width: 1; } svg .mark { stroke: var(--ink); stroke-dasharray: 3 3; opacity: 0.7; }
";

/// What was measured, as a page of HTML.
pub fn page(report: &Report, main: &Phase) -> String {
    let mut page = String::new();
    let mut say = |text: &str| page.push_str(text);
    say("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    say("<meta name=\"viewport\" content=\"width=device-width\">\n<title>Hasp: load test</title>\n<style>");
    say(STYLE);
    say("</style>\n</head>\n<body>\n<h1>Hasp under load</h1>\n");
    say(&introduction(main));
    say(&figures(report, main));
    say(&faults(report));
    say(&capacity(main));
    say(&masters::against_clients(report.points(), main));
    say(&over_time(&main.series));
    say("<h2>All figures</h2>\n<pre>");
    say(&escaped(&report.to_string()));
    say("</pre>\n</body>\n</html>\n");
    page
}

fn introduction(main: &Phase) -> String {
    format!(
        "<p>Hasp is a lock service: clients keep <em>sessions</em> with it by asking for a new lease every few seconds, a \
         <em>KeepAlive</em>. Each cell of it has one master. Here {} clients had real sessions through <em>proxies</em>, which \
         answer KeepAlives and cached reads for the masters behind them. They were measured for {:.0} seconds.</p>\n",
        grouped(main.clients as f64),
        main.seconds
    )
}

fn figures(report: &Report, main: &Phase) -> String {
    let mut figures = vec![
        (grouped(main.sessions.opened as f64), "sessions opened".to_owned(), false),
        (grouped(main.sessions.lost as f64), "lost".to_owned(), main.sessions.lost > 0),
        (grouped(main.sessions.jeopardy as f64), "times in jeopardy".to_owned(), false),
        (
            grouped(main.violations.count as f64),
            format!("of {} checks failed", grouped(main.checks.reads as f64)),
            main.violations.count > 0,
        ),
    ];
    if let Some(reduction) = report.reduction() {
        let text = "times fewer KeepAlives at the busiest master than without proxies";
        figures.push((grouped(reduction.round()), text.to_owned(), false));
    }
    if let Some(moves) = &main.moves {
        let pause =
            moves.pause_ms_max.map_or_else(String::new, |ms| format!(", the longest pause {ms:.0} ms"));
        let text = format!("of {} prefixes moved to another cell{pause}", moves.asked);
        figures.push((grouped(moves.done as f64), text, moves.done < moves.asked));
    }
    let figure = |(value, text, is_bad): (String, String, bool)| {
        let class = if is_bad { " class=\"bad\"" } else { "" };
        format!("<div><b{class}>{value}</b>{text}</div>\n")
    };
    let figures: String = figures.into_iter().map(figure).collect();
    format!("<div class=\"figures\">\n{figures}</div>\n")
}

fn faults(report: &Report) -> String {
    let faults = report.faults();
    if faults.is_empty() {
        return String::new();
    }
    let items: String = faults.iter().map(|fault| format!("<li>{}</li>\n", escaped(fault))).collect();
    format!("<h2 class=\"bad\">What went wrong</h2>\n<ul>\n{items}</ul>\n")
}

/// How many clients there can be, if that was looked for.
fn capacity(main: &Phase) -> String {
    let Some(capacity) = &main.capacity else { return String::new() };
    let held = capacity.held.map_or_else(|| "No".to_owned(), |held| grouped(held as f64));
    format!("<p><b>{held} clients held</b>; {}.</p>\n", escaped(&capacity.why))
}

fn over_time(series: &Series) -> String {
    if series.samples.len() < 2 {
        return "<p class=\"faint\">Too short a measurement for plots over time.</p>\n".to_owned();
    }
    let of = |value: &dyn Fn(&Sample) -> Option<f64>| -> Vec<(f64, f64)> {
        series.samples.iter().filter_map(|sample| Some((sample.at_s, value(sample)?))).collect()
    };
    let line = |name: &str, colour, value: &dyn Fn(&Sample) -> Option<f64>| {
        Line::new(name, colour, Style::Solid, of(value))
    };
    let plot = |title: &str, text: &str, y: Axis, lines: Vec<Line>| {
        let marks = series.marks.iter().map(|mark| (mark.at_s, mark.what.clone())).collect();
        let plot = Plot { x: Axis::linear("seconds under load"), y, lines, marks };
        format!("<h2>{title}</h2>\n<p>{text}</p>\n{}", plot.to_svg())
    };
    let millis = |micros: u64| micros as f64 / 1_000.0;
    let masters = |sample: &Sample| sample.at_masters_per_s.values().copied().reduce(f64::max);
    let mut text = plot(
        "Latency over time",
        "Of all operations of the clients, from the moment when each was due, so that waiting counts.",
        Axis::logarithmic("milliseconds"),
        vec![
            line("half are faster", colour::BLUE, &|sample| Some(millis(sample.latency?.p50_us))),
            line("99 of 100 are", colour::ORANGE, &|sample| Some(millis(sample.latency?.p99_us))),
            line("slowest", colour::GREY, &|sample| Some(millis(sample.latency?.max_us))),
        ],
    );
    text += &plot(
        "Operations over time",
        "Done by all clients, and how many sessions did not know for a moment whether they stand (jeopardy).",
        Axis::linear("per second"),
        vec![
            line("operations", colour::BLUE, &|sample| Some(sample.ops_per_s)),
            line("in jeopardy", colour::RED, &|sample| Some(sample.jeopardy as f64)),
        ],
    );
    text += &plot(
        "KeepAlives over time",
        "Received by all proxies of a layer together, and by the busiest master.",
        Axis::logarithmic("per second"),
        vec![
            line("at all proxies", colour::GREY, &|sample| sample.at_proxies_per_s),
            line("at all upper proxies", colour::ORANGE, &|sample| sample.at_upper_proxies_per_s),
            line("at the busiest master", colour::BLUE, &masters),
        ],
    );
    text += &plot(
        "CPU over time",
        "A line for each process: shares of one core.",
        Axis::linear("% of a core"),
        processes(series, &|process| Some(process.cpu_share? * 100.0)),
    );
    text + &plot(
        "Memory over time",
        "A line for each process: what is resident.",
        Axis::linear("MiB"),
        processes(series, &|process| process.rss_mib),
    )
}

/// A line for each process, in the colour of what it was last.
fn processes(series: &Series, value: &dyn Fn(&ProcessSample) -> Option<f64>) -> Vec<Line> {
    let Some(last) = series.samples.last() else { return Vec::new() };
    let line = |process: &ProcessSample| {
        let point = |sample: &Sample| {
            let same = sample.processes.iter().find(|other| other.name == process.name)?;
            Some((sample.at_s, value(same)?))
        };
        let points = series.samples.iter().filter_map(point).collect();
        let (group, colour) = match process.role.as_str() {
            "master" => ("masters", colour::RED),
            "follower" => ("followers", colour::ORANGE),
            "proxy" | "upper-proxy" => ("proxies", colour::BLUE),
            _ => ("clients", colour::GREY),
        };
        Line::new(group, colour, Style::Solid, points).hinting(&process.name)
    };
    last.processes.iter().map(line).collect()
}

/// `12345.0` as `12,345`.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Text that says in HTML what it says.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests;
