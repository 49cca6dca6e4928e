//! docs/performance.svg: a bar per micro row, as a part of Xen's instructions.

use plotters::chart::ChartBuilder;
use plotters::drawing::IntoDrawingArea;
use plotters::element::{PathElement, Rectangle, Text};
use plotters::prelude::SVGBackend;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color, IntoFont, RGBColor, TextStyle, WHITE};

use crate::Result;
use crate::project::root;

use super::figures::Store;
use super::report::{Line, MICRO, lines};

const WIDTH: u32 = 900;
const ROW_HEIGHT: u32 = 18;
const MARGIN: u32 = 70;
const NAMES: u32 = 260;
/// The longest bar, as a ratio.
const LONGEST: f64 = 1.1;

const MET: RGBColor = RGBColor(46, 125, 50);
const MISSED: RGBColor = RGBColor(198, 40, 40);
const GOAL: RGBColor = RGBColor(33, 33, 33);

/// Draws the stored figures.
pub fn write(store: &Store) -> Result {
    let lines: Vec<Line> = lines(store, &MICRO)
        .into_iter()
        .filter(|line| line.ratio().is_some())
        .collect();
    draw(&lines).map_err(|error| format!("docs/performance.svg: {error}"))
}

fn draw(lines: &[Line]) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let path = root().join("docs/performance.svg");
    let count = lines.len() as f64;
    let area = SVGBackend::new(&path, (WIDTH, MARGIN + ROW_HEIGHT * lines.len() as u32))
        .into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(
            "Krypton's instructions as a part of Xen 4.17's (line: goal)",
            ("sans-serif", 16),
        )
        .margin_right(20)
        .x_label_area_size(30)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(0.0..LONGEST, 0.0..count)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(11)
        .draw()?;
    let text = TextStyle::from(("sans-serif", 12).into_font()).color(&BLACK);
    let name = text.pos(Pos::new(HPos::Right, VPos::Center));
    let figure = text.pos(Pos::new(HPos::Left, VPos::Center));
    for (index, line) in (1..).zip(lines) {
        let bottom = count - f64::from(index);
        let ratio = line.ratio().unwrap_or_default();
        let goal = line.row.goal.unwrap_or_default();
        let colour = if line.is_met() == Some(false) {
            MISSED
        } else {
            MET
        };
        let corners = [(0.0, bottom + 0.15), (ratio.min(LONGEST), bottom + 0.85)];
        chart.draw_series([Rectangle::new(corners, colour.mix(0.75).filled())])?;
        let mark = vec![(goal, bottom), (goal, bottom + 1.0)];
        chart.draw_series([PathElement::new(mark, GOAL.stroke_width(2))])?;
        let middle = bottom + 0.5;
        let right = (ratio.max(goal) + 0.01).min(LONGEST - 0.06);
        chart.draw_series([
            Text::new(line.row.name.to_owned(), (-0.01, middle), name.clone()),
            Text::new(format!("{ratio:.3}"), (right, middle), figure.clone()),
        ])?;
    }
    chart.draw_series([PathElement::new(
        vec![(1.0, 0.0), (1.0, count)],
        BLACK.stroke_width(1),
    )])?;
    area.present()?;
    Ok(())
}
