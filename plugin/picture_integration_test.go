//go:build integration

package main

import (
	"encoding/json"
	"fmt"
	"html"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// panel is a panel of the dashboard as far as a picture of it needs it.
type panel struct {
	Title   string
	Type    string
	GridPos struct{ X, Y, W, H float64 }
	Targets []struct{ Expr, LegendFormat string }
	Field   struct {
		Defaults struct{ Unit string }
	} `json:"fieldConfig"`
}

// line is one series of a panel.
type line struct {
	name   string
	points [][2]float64 // seconds, value
}

var colours = []string{"#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0", "#508642", "#cca300"}

// drawDashboard writes a picture of the dashboard as SVG, with the data that ask returns for a
// query. The layout is the dashboard's. The drawing is ours, because no Grafana runs here.
func drawDashboard(t *testing.T, path string, ask func(expr, legend string) []line) {
	t.Helper()
	b, err := os.ReadFile("../examples/monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Title  string
		Panels []panel
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	const column, row, top = 50.0, 26.0, 44.0
	var svg strings.Builder
	bottom := 0.0
	for _, p := range dashboard.Panels {
		bottom = max(bottom, (p.GridPos.Y+p.GridPos.H)*row)
	}
	fmt.Fprintf(&svg, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" font-family="sans-serif" font-size="11" fill="#ccccdc">`+"\n",
		24*column, top+bottom)
	fmt.Fprintf(&svg, `<rect width="100%%" height="100%%" fill="#111217"/><text x="12" y="28" font-size="17">%s</text>`+"\n", html.EscapeString(dashboard.Title))
	for _, p := range dashboard.Panels {
		x, y, w, h := p.GridPos.X*column+4, top+p.GridPos.Y*row+4, p.GridPos.W*column-8, p.GridPos.H*row-8
		fmt.Fprintf(&svg, `<rect x="%.0f" y="%.0f" width="%.0f" height="%.0f" rx="3" fill="#181b1f" stroke="#2c3235"/><text x="%.0f" y="%.0f" font-size="12">%s</text>`+"\n",
			x, y, w, h, x+8, y+17, html.EscapeString(p.Title))
		var lines []line
		for _, target := range p.Targets {
			lines = append(lines, ask(target.Expr, target.LegendFormat)...)
		}
		// The most important first; a picture holds only so many.
		slices.SortFunc(lines, func(a, b line) int { return int(math.Copysign(1, last(b)-last(a))) })
		lines = lines[:min(len(lines), len(colours))]
		switch {
		case len(lines) == 0:
			fmt.Fprintf(&svg, `<text x="%.0f" y="%.0f" fill="#8e8e8e">no data: nothing of this happened</text>`+"\n", x+w/2-85, y+h/2)
		case p.Type == "stat":
			fmt.Fprintf(&svg, `<text x="%.0f" y="%.0f" font-size="30" fill="#73bf69" text-anchor="middle">%s</text>`+"\n", x+w/2, y+h/2+18, amount(last(lines[0]), p.Field.Defaults.Unit))
		default:
			drawLines(&svg, lines, p.Field.Defaults.Unit, x+64, y+28, w-76, h-66, x+8, y+h-20, w-16)
		}
	}
	svg.WriteString("</svg>\n")
	if err := os.WriteFile(path, []byte(svg.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

func last(l line) float64 { return l.points[len(l.points)-1][1] }

func drawLines(svg *strings.Builder, lines []line, unit string, x, y, w, h, legendX, legendY, legendW float64) {
	from, to, most := math.Inf(1), math.Inf(-1), 0.0
	for _, l := range lines {
		for _, p := range l.points {
			from, to, most = min(from, p[0]), max(to, p[0]), max(most, p[1])
		}
	}
	if most == 0 {
		most = 1
	}
	most *= 1.1
	for i := range 4 {
		at := y + h - h*float64(i)/3
		fmt.Fprintf(svg, `<path d="M%.0f %.1fh%.0f" stroke="#2c3235"/><text x="%.0f" y="%.1f" text-anchor="end" fill="#8e8e8e">%s</text>`+"\n", x, at, w, x-5, at+4, amount(most*float64(i)/3, unit))
	}
	at := legendX
	for i, l := range lines {
		var d strings.Builder
		for k, p := range l.points {
			fmt.Fprintf(&d, "%c%.1f %.1f", "ML"[min(k, 1)], x+w*(p[0]-from)/max(to-from, 1), y+h-h*p[1]/most)
		}
		fmt.Fprintf(svg, `<path d="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", d.String(), colours[i])
		if size := 18 + 6.2*float64(len(l.name)); at+size < legendX+legendW {
			fmt.Fprintf(svg, `<rect x="%.0f" y="%.0f" width="9" height="3" fill="%s"/><text x="%.0f" y="%.0f">%s</text>`+"\n", at, legendY+8, colours[i], at+13, legendY+13, html.EscapeString(l.name))
			at += size
		}
	}
}

// amount is a value as Grafana would show it in a unit of the dashboard.
func amount(v float64, unit string) string {
	suffix := ""
	switch unit {
	case "s":
		switch {
		case v >= 86400:
			v, suffix = v/86400, " d"
		case v >= 3600:
			v, suffix = v/3600, " h"
		case v >= 60:
			v, suffix = v/60, " min"
		default:
			suffix = " s"
		}
	case "percentunit":
		v, suffix = v*100, " %"
	case "bytes", "Bps":
		units := []string{" B", " KiB", " MiB", " GiB"}
		i := 0
		for v >= 1024 && i < 3 {
			v, i = v/1024, i+1
		}
		suffix = units[i]
		if unit == "Bps" {
			suffix += "/s"
		}
	default:
		if v >= 1000 {
			v, suffix = v/1000, " K"
		}
	}
	return strconv.FormatFloat(v, 'g', 3, 64) + suffix
}
