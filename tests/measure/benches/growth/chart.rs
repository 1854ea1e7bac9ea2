//! A plot as a picture: both axes logarithmic, a curve's name at its end.

use crate::plot::{Plot, grouped, ns};
use crate::svg::{Frame, Svg};

const WIDTH: f64 = 1100.0;
const HEIGHT: f64 = 430.0;
const INNER: Frame = Frame { x: 84.0, y: 14.0, width: 680.0, height: 350.0 };
/// What a name takes of the height.
const LINE: f64 = 19.0;

/// How many colours the style sheet has.
const COLOURS: usize = 6;

/// A logarithmic axis: where it starts and ends, and what that is on the picture.
struct Axis {
    from: f64,
    to: f64,
    start: f64,
    length: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        self.start + self.length * (value / self.from).ln() / (self.to / self.from).ln()
    }
}

/// Draws it.
pub(crate) fn draw(plot: &Plot, title: &str) -> String {
    let mut svg = Svg::default();
    let xs = plot.xs();
    let bounds = |figures: &mut dyn Iterator<Item = f64>| {
        figures.fold((f64::MAX, f64::MIN_POSITIVE), |(least, most), figure| (least.min(figure), most.max(figure)))
    };
    let (left, right) = bounds(&mut xs.iter().map(|x| f64::from(*x)));
    let x = Axis { from: left, to: right, start: INNER.x, length: INNER.width };
    let (low, high) = bounds(&mut plot.curves.iter().flat_map(|curve| &curve.points).map(|point| point.nanos));
    let (from, to) = (10f64.powf(low.log10().floor()), 10f64.powf(high.log10().ceil()));
    let y = Axis { from, to, start: INNER.bottom(), length: -INNER.height };
    axes(&mut svg, &x, &y, &xs);
    svg.text("middle", INNER.x + INNER.width / 2.0, HEIGHT - 22.0, plot.x);
    svg.upright("middle", 18.0, INNER.y + INNER.height / 2.0, plot.y);
    for (index, curve) in plot.curves.iter().enumerate() {
        let class = class(index, curve.is_floor);
        let points: Vec<_> = curve.points.iter().map(|point| (x.at(point.x.into()), y.at(point.nanos))).collect();
        svg.curve(&class, points.iter().copied().map(Some));
        for ((px, py), point) in points.into_iter().zip(&curve.points) {
            let dot = Frame { x: px - 3.5, y: py - 3.5, width: 7.0, height: 7.0 };
            svg.rect(
                &format!("{class} dot"),
                dot,
                &format!("{}: {} at {}", curve.name, ns(point.nanos), grouped(point.x.into())),
            );
        }
    }
    names(&mut svg, plot, &y);
    svg.finish(title, WIDTH, HEIGHT)
}

fn class(index: usize, is_floor: bool) -> String {
    format!("curve c{}{}", index % COLOURS, if is_floor { " floor" } else { "" })
}

fn axes(svg: &mut Svg, x: &Axis, y: &Axis, xs: &[u32]) {
    let mut decade = y.from;
    while decade <= y.to * 1.001 {
        let at = y.at(decade);
        svg.line("grid", (INNER.x, at), (INNER.right(), at));
        svg.text("end", INNER.x - 8.0, at + 4.5, &tick(decade));
        for part in [2.0, 5.0].map(|part| part * decade).into_iter().filter(|part| *part < y.to) {
            svg.line("grid minor", (INNER.x, y.at(part)), (INNER.right(), y.at(part)));
        }
        decade *= 10.0;
    }
    for value in xs {
        let at = x.at(f64::from(*value));
        svg.line("grid", (at, INNER.y), (at, INNER.bottom()));
        svg.text("middle", at, INNER.bottom() + 20.0, &grouped((*value).into()));
    }
}

fn tick(nanos: f64) -> String {
    let (figure, unit) = if nanos > 999.0 { (nanos / 1e3, "µs") } else { (nanos, "ns") };
    let digits = if figure < 0.99 { 1 } else { 0 };
    format!("{figure:.digits$} {unit}")
}

/// The names beside the ends of their curves, moved apart where the ends are close.
fn names(svg: &mut Svg, plot: &Plot, y: &Axis) {
    let mut ends: Vec<_> =
        plot.curves.iter().enumerate().map(|(index, curve)| (y.at(curve.last()), index, curve)).collect();
    ends.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut places: Vec<f64> = Vec::new();
    for (end, ..) in &ends {
        let above = places.last().map_or(f64::MIN, |place| place + LINE);
        places.push(end.max(above));
    }
    // What has been pushed out at the bottom is pushed up again.
    let mut below = INNER.bottom() + LINE;
    for place in places.iter_mut().rev() {
        *place = place.min(below - LINE);
        below = *place;
    }
    for ((end, index, curve), place) in ends.iter().zip(places) {
        let colour = class(*index, curve.is_floor);
        svg.line(&format!("{colour} lead"), (INNER.right() + 6.0, *end), (INNER.right() + 26.0, place));
        svg.text(&format!("name c{}", index % COLOURS), INNER.right() + 32.0, place + 4.5, &curve.name);
    }
}
