//! A few marks of SVG. How they look is decided by the page's style sheet, by class.

use core::fmt::{self, Write as _};

/// A place on the picture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// Left edge.
    pub(crate) x: f64,
    /// Upper edge.
    pub(crate) y: f64,
    /// Width.
    pub(crate) width: f64,
    /// Height.
    pub(crate) height: f64,
}

impl Frame {
    /// The lower edge.
    pub(crate) fn bottom(self) -> f64 {
        self.y + self.height
    }

    /// The right edge.
    pub(crate) fn right(self) -> f64 {
        self.x + self.width
    }

    /// As high and as deep, but over another stretch of the x axis.
    pub(crate) const fn across(self, x: f64, width: f64) -> Self {
        Self { x, width, ..self }
    }
}

/// A picture as it is written.
#[derive(Debug, Default)]
pub(crate) struct Svg(String);

impl Svg {
    /// A filled rectangle, and what it says when pointed at.
    pub(crate) fn rect(&mut self, class: &str, at: Frame, title: &str) {
        let Frame { x, y, width, height } = at;
        self.put(format_args!(
            r#"<rect class="{class}" x="{x:.2}" y="{y:.2}" width="{width:.2}" height="{height:.2}">"#
        ));
        if !title.is_empty() {
            self.put(format_args!("<title>{}</title>", escaped(title)));
        }
        self.put(format_args!("</rect>\n"));
    }

    /// A text whose class says how it is anchored.
    pub(crate) fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let text = escaped(text);
        self.put(format_args!("<text class=\"{class}\" x=\"{x:.2}\" y=\"{y:.2}\">{text}</text>\n"));
    }

    /// A text that runs upwards.
    pub(crate) fn upright(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let text = escaped(text);
        self.put(format_args!(
            "<text class=\"{class}\" transform=\"translate({x:.2} {y:.2}) rotate(-90)\">{text}</text>\n"
        ));
    }

    /// A straight line.
    pub(crate) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.put(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.2}\" y1=\"{y1:.2}\" x2=\"{x2:.2}\" y2=\"{y2:.2}\"/>\n"
        ));
    }

    /// A line through points, broken where one is missing. A lone point becomes a dot.
    pub(crate) fn curve(&mut self, class: &str, points: impl Iterator<Item = Option<(f64, f64)>>) {
        let mut path = String::new();
        let mut pen_is_down = false;
        for point in points {
            if let Some((x, y)) = point {
                // A zero-length line shows as a dot, given round caps.
                let step = if pen_is_down { format!("L{x:.2} {y:.2}") } else { format!("M{x:.2} {y:.2}h0") };
                path.push_str(&step);
            }
            pen_is_down = point.is_some();
        }
        self.put(format_args!("<path class=\"{class}\" d=\"{path}\"/>\n"));
    }

    /// The whole element.
    pub(crate) fn finish(self, label: &str, width: f64, height: f64) -> String {
        format!(
            "<svg role=\"img\" aria-label=\"{}\" viewBox=\"0 0 {width} {height}\" \
             xmlns=\"http://www.w3.org/2000/svg\">\n{}</svg>\n",
            escaped(label),
            self.0
        )
    }

    fn put(&mut self, text: fmt::Arguments<'_>) {
        // A String takes everything.
        let _ = self.0.write_fmt(text);
    }
}

/// Text that markup can't take for its own.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_a_text_stays_text() {
        let mut svg = Svg::default();
        svg.text("label", 0.0, 0.0, "<b> & \"c\"");
        assert!(svg.finish("", 1.0, 1.0).contains("&lt;b&gt; &amp; &quot;c&quot;</text>"));
    }

    #[test]
    fn a_curve_breaks_where_a_point_is_missing() {
        let mut svg = Svg::default();
        let points = [Some((0.0, 1.0)), Some((1.0, 1.0)), None, Some((3.0, 1.0))];
        svg.curve("c", points.into_iter());
        let path = "M0.00 1.00h0L1.00 1.00M3.00 1.00h0";
        assert!(svg.finish("", 1.0, 1.0).contains(path));
    }
}
