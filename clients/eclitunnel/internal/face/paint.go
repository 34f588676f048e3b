package face

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/internal/terminal"
)

// color is the parameter of an SGR sequence (ECMA-48).
type color string

const (
	none   color = ""
	bold   color = "1"
	dim    color = "2"
	red    color = "31"
	green  color = "32"
	yellow color = "33"
)

// paint returns text in a colour.
func (p painter) paint(c color, text string) string {
	if !p.style.Color || c == none || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

var sequences = regexp.MustCompile("\x1b\\[[0-9;]*m")

// plain returns a row without its colours.
func plain(row string) string { return sequences.ReplaceAllString(row, "") }

// fit returns text in at most so many columns.
func (p painter) fit(text string, columns int) string {
	return terminal.Fit(terminal.Escape(text), max(columns, 0), p.ellipsis())
}

// cell returns text in a colour and in exactly so many columns.
func (p painter) cell(c color, text string, columns int) string {
	text = p.fit(text, columns)
	return p.paint(c, text) + strings.Repeat(" ", max(0, columns-terminal.Width(text)))
}

// wrap returns text in rows that begin with indent, at most so many.
func (p painter) wrap(c color, indent, text string, rows int) []string {
	width := p.columns - len(indent)
	var out []string
	for text != "" && len(out) < rows {
		part := text
		if len(out) < rows-1 && terminal.Width(text) > width {
			part = terminal.Fit(text, width, "")
			if cut := strings.LastIndexByte(part, ' '); cut > 0 {
				part = part[:cut]
			}
		}
		if part == "" {
			break // A single character is wider.
		}
		out = append(out, indent+p.paint(c, p.fit(part, width)))
		text = strings.TrimPrefix(text[len(part):], " ")
	}
	return out
}

type condition int

const (
	fine condition = iota
	waiting
	warning
	failing
	resting
)

// mark is a sign for a condition. Its shape says as much as its colour.
func (p painter) mark(c condition) string {
	if p.style.Unicode {
		return []string{"●", "○", "▲", "✗", "◌"}[c]
	}
	return []string{"*", "o", "!", "x", "-"}[c]
}

func (p painter) portMark(port agent.PortView) (string, color) {
	switch port.State {
	case agent.PortOpen:
		return p.mark(fine), green
	case agent.PortNoGame:
		return p.mark(warning), yellow
	case agent.PortFailed:
		return p.mark(failing), red
	case agent.PortPaused:
		return p.mark(resting), dim
	default:
		return p.mark(waiting), yellow
	}
}

func (p painter) ellipsis() string {
	if p.style.Unicode {
		return "…"
	}
	return "..."
}

func (p painter) dot() string {
	if p.style.Unicode {
		return " · "
	}
	return ", "
}

func (p painter) arrow() string {
	if p.style.Unicode {
		return "→"
	}
	return ">"
}

// upDown are the signs for what players receive and what they send, as seen from this
// machine's line.
func (p painter) upDown() (up, down string) {
	if p.style.Unicode {
		return "↑", "↓"
	}
	return "up", "down"
}

// duration says how long ago something was, to the minute.
func (p painter) duration(since time.Time) string {
	d := p.now.Sub(since)
	minutes := int(d / time.Minute)
	switch {
	case d < time.Minute:
		return "just now"
	case minutes < 60:
		return fmt.Sprintf("%d min", minutes)
	case minutes < 48*60:
		return fmt.Sprintf("%d h %d min", minutes/60, minutes%60)
	default:
		return fmt.Sprintf("%d days", minutes/60/24)
	}
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func milliseconds(ms float64) string {
	if ms < 10 {
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// Bytes returns a number of bytes for people, in units of 1000.
func Bytes(n float64) string {
	for _, unit := range []string{"B", "kB", "MB", "GB", "TB"} {
		if n < 999.5 || unit == "TB" {
			if unit == "B" || n >= 99.5 {
				return fmt.Sprintf("%.0f %s", n, unit)
			}
			return fmt.Sprintf("%.1f %s", n, unit)
		}
		n /= 1000
	}
	return ""
}
