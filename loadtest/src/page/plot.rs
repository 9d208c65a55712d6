//! Lines over a plane, as SVG.
//!
//! Pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::escaped;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 300.0;
/// Room for numbers and names: left, right, above, below.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 45.0;
/// Numbers on a linear axis, at most.
const TICKS: f64 = 6.0;
/// Nothing has a logarithm: what is smaller is drawn here.
const SMALLEST: f64 = 0.01;

/// What an axis is of.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    name: &'static str,
    is_logarithmic: bool,
}

impl Axis {
    /// Equal steps, from zero.
    pub const fn linear(name: &'static str) -> Self {
        Self { name, is_logarithmic: false }
    }

    /// Powers of ten.
    pub const fn logarithmic(name: &'static str) -> Self {
        Self { name, is_logarithmic: true }
    }

    /// From the least to the greatest number shown, given those that are to be seen.
    fn span(self, values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
        let most = values.clone().fold(0.0, f64::max);
        if !self.is_logarithmic {
            return (0.0, if most > 0.0 { most * 1.05 } else { 1.0 });
        }
        let least = values.map(|value| value.max(SMALLEST)).fold(f64::INFINITY, f64::min);
        let least = if least.is_finite() { least } else { 1.0 };
        let (low, high) = (least.log10().floor(), most.max(least).log10().ceil());
        (10_f64.powf(low), 10_f64.powf(high.max(low + 1.0)))
    }

    /// Where a number is between the ends of the axis, from 0 to 1.
    fn place(self, value: f64, (low, high): (f64, f64)) -> f64 {
        if self.is_logarithmic {
            (value.max(SMALLEST).log10() - low.log10()) / (high.log10() - low.log10())
        } else {
            (value - low) / (high - low)
        }
    }

    fn ticks(self, (low, high): (f64, f64)) -> Vec<f64> {
        if self.is_logarithmic {
            let (first, last) = (low.log10().round() as i32, high.log10().round() as i32);
            return (first..=last).map(|power| 10_f64.powi(power)).collect();
        }
        let step = round_step((high - low) / TICKS);
        (0..).map(|number| f64::from(number) * step).take_while(|tick| *tick <= high).collect()
    }
}

/// The next of 1, 2, 5, 10, 20, ... that is not smaller.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= step);
    factor.unwrap_or(10.0) * power
}

/// How points are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As a line.
    Solid,
    /// As a line that says less.
    Dashed,
    /// As they are.
    Dots,
}

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Line {
    name: String,
    colour: &'static str,
    style: Style,
    points: Vec<(f64, f64)>,
    /// Shown where somebody points at it.
    hint: String,
}

impl Line {
    /// Lines of the same name and colour are named once.
    pub fn new(name: &str, colour: &'static str, style: Style, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_owned(), colour, style, points, hint: name.to_owned() }
    }

    /// Whether there is nothing to draw.
    pub const fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// What is drawn.
    #[cfg(test)]
    pub fn points(&self) -> &[(f64, f64)] {
        &self.points
    }

    /// How it is drawn.
    #[cfg(test)]
    pub const fn style(&self) -> Style {
        self.style
    }

    /// With another hint than its name.
    #[must_use]
    pub fn hinting(self, hint: &str) -> Self {
        Self { hint: hint.to_owned(), ..self }
    }
}

/// All that is drawn.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Across.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// What is shown.
    pub lines: Vec<Line>,
    /// Moments, across, and what happened then.
    pub marks: Vec<(f64, String)>,
}

impl Plot {
    /// As an element of a page.
    pub fn to_svg(&self) -> String {
        let points = self.lines.iter().flat_map(|line| &line.points);
        let spans = (
            self.x.span(points.clone().map(|(x, _)| *x).chain(self.marks.iter().map(|(x, _)| *x))),
            self.y.span(points.map(|(_, y)| *y)),
        );
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n");
        self.draw_grid(&mut svg, spans);
        for line in &self.lines {
            self.draw_line(&mut svg, line, spans);
        }
        self.draw_marks(&mut svg, spans);
        self.draw_names(&mut svg);
        svg + "</svg>\n"
    }

    fn draw_grid(&self, svg: &mut String, (x_span, y_span): ((f64, f64), (f64, f64))) {
        for tick in self.y.ticks(y_span) {
            let y = up(self.y.place(tick, y_span));
            let right = WIDTH - RIGHT;
            put(
                svg,
                &format!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"),
            );
            text(svg, (LEFT - 8.0, y + 4.0), "end", &number(tick));
        }
        for tick in self.x.ticks(x_span) {
            let x = across(self.x.place(tick, x_span));
            text(svg, (x, HEIGHT - BOTTOM + 18.0), "middle", &number(tick));
        }
        text(svg, (WIDTH - RIGHT, HEIGHT - 6.0), "end", self.x.name);
        text(svg, (4.0, TOP - 12.0), "start", self.y.name);
    }

    fn draw_line(&self, svg: &mut String, line: &Line, (x_span, y_span): ((f64, f64), (f64, f64))) {
        let place = |(x, y): &(f64, f64)| (across(self.x.place(*x, x_span)), up(self.y.place(*y, y_span)));
        let (colour, hint) = (line.colour, escaped(&line.hint));
        if line.style == Style::Dots {
            for (x, y) in line.points.iter().map(place) {
                put(
                    svg,
                    &format!(
                        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{colour}\"><title>{hint}</title></circle>"
                    ),
                );
            }
            return;
        }
        if line.points.is_empty() {
            return;
        }
        let points: Vec<_> = line.points.iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dashes = if line.style == Style::Dashed { " stroke-dasharray=\"6 5\"" } else { "" };
        put(
            svg,
            &format!(
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"{dashes} points=\"{}\"><title>{hint}</title></polyline>",
                points.join(" ")
            ),
        );
    }

    fn draw_marks(&self, svg: &mut String, (x_span, _): ((f64, f64), (f64, f64))) {
        for (number, (at, what)) in (1..).zip(&self.marks) {
            let x = across(self.x.place(*at, x_span));
            let bottom = HEIGHT - BOTTOM;
            put(
                svg,
                &format!(
                    "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"><title>{}</title></line>",
                    escaped(what)
                ),
            );
            // One below the other, so that those close together can be read.
            let y = TOP + 12.0 + f64::from(number % 4) * 14.0;
            text(svg, (x + 3.0, y), "start", what);
        }
    }

    fn draw_names(&self, svg: &mut String) {
        let mut named = BTreeSet::new();
        let mut x = LEFT + 140.0;
        for line in &self.lines {
            if line.points.is_empty() || !named.insert((&line.name, line.colour)) {
                continue;
            }
            let y = TOP - 16.0;
            put(svg, &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{}\"/>", line.colour));
            text(svg, (x + 9.0, y + 4.0), "start", &line.name);
            x += 30.0 + 7.0 * line.name.len() as f64;
        }
    }
}

fn across(place: f64) -> f64 {
    LEFT + place * (WIDTH - LEFT - RIGHT)
}

fn up(place: f64) -> f64 {
    HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM)
}

fn put(svg: &mut String, element: &str) {
    svg.push_str(element);
    svg.push('\n');
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, what: &str) {
    let what = escaped(what);
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{what}</text>")
        .expect("to a string");
}

/// As short as can be.
fn number(value: f64) -> String {
    match value {
        value if value >= 1_000.0 => super::grouped(value),
        value if value.fract() == 0.0 => format!("{value:.0}"),
        value => format!("{value:.3}").trim_end_matches('0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_on_an_axis_are_round_and_cover_what_is_shown() {
        let linear = Axis::linear("x");
        let span = linear.span([3.0, 17.0].into_iter());
        assert_eq!(linear.ticks(span), [0.0, 5.0, 10.0, 15.0]);
        let logarithmic = Axis::logarithmic("y");
        let span = logarithmic.span([0.0, 0.4, 376.9].into_iter());
        assert_eq!(span, (0.01, 1_000.0), "nothing is drawn as little");
        assert_eq!(logarithmic.ticks(span).len(), 6);
        assert_eq!(linear.span(std::iter::empty()), (0.0, 1.0));
        assert_eq!([0.5, 0.01, 20.0, 12_000.0].map(number), ["0.5", "0.01", "20", "12,000"]);
    }

    #[test]
    fn what_is_greater_is_further_up_and_to_the_right_and_nothing_leaves_the_frame() {
        for axis in [Axis::linear("a"), Axis::logarithmic("a")] {
            let values = [1.0, 30.0, 250.0];
            let span = axis.span(values.into_iter());
            let places = values.map(|value| axis.place(value, span));
            assert!(
                places.is_sorted() && places.iter().all(|place| (0.0..=1.0).contains(place)),
                "{places:?}"
            );
        }
        assert!(up(1.0) < up(0.0) && across(0.0) < across(1.0));
    }

    #[test]
    fn lines_of_one_group_are_named_once_and_marks_say_what_happened() {
        let line = |hint: &str| {
            let points = vec![(0.0, 1.0), (1.0, 2.0)];
            Line::new("proxies", "#123", Style::Solid, points).hinting(hint)
        };
        let plot = Plot {
            x: Axis::linear("seconds"),
            y: Axis::linear("MiB"),
            lines: vec![line("proxy-1"), line("proxy-2")],
            marks: vec![(0.5, "proxy-1 <is> killed".into())],
        };

        let svg = plot.to_svg();

        assert_eq!(svg.matches(">proxies<").count(), 1);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("proxy-1 &lt;is&gt; killed") && !svg.contains("<is>"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
