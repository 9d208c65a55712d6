//! What a master has to do against the number of clients, with proxies and without: the point of it all.
//!
//! Pure. Dots are measurements. The only line that is more than what joins them is the one that goes on from the
//! greatest number of clients measured without proxies, and the page says so.

use std::fmt::Write as _;

use super::plot::{Axis, Line, Plot, Style};
use super::{colour, grouped};
use crate::points::{Point, of_kind};
use crate::report::Phase;

/// Two plots over the same points, and which of them were measured.
pub(super) fn against_clients(points: &[Point], main: &Phase) -> String {
    let (with, without) = (of_kind(points, true), of_kind(points, false));
    let reached = points.iter().map(|point| point.clients).max().unwrap_or(0) as f64;
    let keep_alives = |point: &Point| Some(point.at_master_per_s);
    let cpu = |point: &Point| Some(point.master_cpu? * 100.0);
    let mut lines = both(&with, &without, reached, &keep_alives);
    if let Some(at_proxies) = main.at_proxies_per_s {
        let point = (main.clients as f64, at_proxies);
        lines.push(Line::new("at all proxies", colour::GREY, Style::Dots, vec![point]));
    }
    let text = format!("What the busiest master receives{}", rates(&with, &without));
    let mut page = plot("KeepAlives at a master, against clients", &text, "KeepAlives per second", lines);
    let lines = both(&with, &without, reached, &cpu);
    if lines.iter().any(|line| !line.is_empty()) {
        let text =
            "What the process of the busiest master uses for everything, operations and the log included.";
        page += &plot("CPU of a master, against clients", text, "% of a core", lines);
    }
    page + &measured(&with, &without, reached)
}

/// Dots of what was measured, lines between them, and the rate for each client beyond.
fn both(
    with: &[&Point],
    without: &[&Point],
    reached: f64,
    value: &dyn Fn(&Point) -> Option<f64>,
) -> Vec<Line> {
    let of = |points: &[&Point]| -> Vec<(f64, f64)> {
        points.iter().filter_map(|point| Some((point.clients as f64, value(point)?))).collect()
    };
    let (with, without) = (of(with), of(without));
    let beyond = match without.last() {
        Some((clients, rate)) if *clients < reached => {
            vec![(*clients, *rate), (reached, rate / clients.max(1.0) * reached)]
        }
        _ => Vec::new(),
    };
    vec![
        Line::new("without proxies", colour::RED, Style::Solid, without.clone()),
        Line::new("without proxies", colour::RED, Style::Dots, without),
        Line::new("at the same rate for each client", colour::RED, Style::Dashed, beyond),
        Line::new("with proxies", colour::BLUE, Style::Solid, with.clone()),
        Line::new("with proxies", colour::BLUE, Style::Dots, with),
    ]
}

fn plot(title: &str, text: &str, y: &'static str, lines: Vec<Line>) -> String {
    let plot = Plot { x: Axis::logarithmic("clients"), y: Axis::logarithmic(y), lines, marks: Vec::new() };
    format!("<h2>{title}</h2>\n<p>{text}</p>\n{}", plot.to_svg())
}

/// At the greatest number of clients of each kind.
fn rates(with: &[&Point], without: &[&Point]) -> String {
    let mut text = String::new();
    for (point, kind) in [(without.last(), "without proxies"), (with.last(), "behind proxies")] {
        let Some(point) = point else { continue };
        let mark = if text.is_empty() { ':' } else { ';' };
        write!(
            text,
            "{mark} {:.2} a second from {} clients {kind}",
            point.at_master_per_s,
            grouped(point.clients as f64)
        )
        .expect("to a string");
    }
    text + "."
}

/// Which points are measurements, in words.
fn measured(with: &[&Point], without: &[&Point], reached: f64) -> String {
    let list = |points: &[&Point]| match points {
        [] => "nowhere".to_owned(),
        points => {
            let clients = points.iter().map(|point| grouped(point.clients as f64));
            format!("at {} clients", clients.collect::<Vec<_>>().join(", "))
        }
    };
    let mut text = format!("Measured with proxies {}; without proxies {}.", list(with), list(without));
    if without.last().is_some_and(|last| (last.clients as f64) < reached) {
        text += " The dashed lines were not measured: they go on from the last dot at the same rate for each client.";
    }
    format!("<p class=\"faint\">{text}</p>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(clients: usize, proxied: bool, at_master_per_s: f64, master_cpu: Option<f64>) -> Point {
        Point { clients, proxied, seconds: 30.0, at_master_per_s, master_cpu }
    }

    fn places(lines: &[Line], style: Style) -> Vec<Vec<(f64, f64)>> {
        lines.iter().filter(|line| line.style() == style).map(|line| line.points().to_vec()).collect()
    }

    #[test]
    fn dots_are_what_was_measured_and_the_dashed_line_begins_at_the_last_without_proxies() {
        let (small, large) = (point(1_000, false, 125.0, Some(0.01)), point(3_000, false, 375.0, None));
        let with = [point(1_000, true, 1.0, Some(0.002)), point(90_000, true, 1.1, Some(0.02))];
        let with: Vec<_> = with.iter().collect();

        let lines = both(&with, &[&small, &large], 90_000.0, &|point| Some(point.at_master_per_s));

        let without = vec![(1_000.0, 125.0), (3_000.0, 375.0)];
        assert_eq!(places(&lines, Style::Dots), [without.clone(), vec![(1_000.0, 1.0), (90_000.0, 1.1)]]);
        assert_eq!(places(&lines, Style::Dashed), [vec![(3_000.0, 375.0), (90_000.0, 11_250.0)]]);
        assert_eq!(places(&lines, Style::Solid)[0], without);

        let lines = both(&with, &[&small, &large], 90_000.0, &|point| point.master_cpu);
        assert_eq!(places(&lines, Style::Dots)[0], [(1_000.0, 0.01)], "what is not known is not drawn");
    }

    #[test]
    fn nothing_is_drawn_beyond_what_was_measured_if_that_went_as_far() {
        let (one, other) = (point(500, false, 62.5, None), point(500, true, 0.4, None));

        let lines = both(&[&other], &[&one], 500.0, &|point| Some(point.at_master_per_s));
        assert_eq!(places(&lines, Style::Dashed), [Vec::new()]);

        let page = against_clients(&[one, other], &Phase::default());
        assert!(
            page.contains("Measured with proxies at 500 clients; without proxies at 500 clients.<"),
            "{page}"
        );
        assert_eq!(page.matches("<svg").count(), 1, "nobody knows the CPU");
    }

    #[test]
    fn the_page_says_which_points_were_measured() {
        let points = [
            point(3_000, false, 375.0, Some(0.1)),
            point(1_000, true, 0.4, Some(0.01)),
            point(90_000, true, 1.125, Some(0.02)),
        ];

        let page = against_clients(&points, &Phase::default());

        assert!(
            page.contains(
                "Measured with proxies at 1,000, 90,000 clients; without proxies at 3,000 clients."
            )
        );
        assert!(page.contains("were not measured"));
        assert!(
            page.contains(": 375.00 a second from 3,000 clients without proxies; 1.12 a second from 90,000")
        );
        assert_eq!(page.matches("<svg").count(), 2);
        assert_eq!(page.matches("<circle").count(), 2 * (3 + 3), "3 dots and 3 names in each");
    }
}
