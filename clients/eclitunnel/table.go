package main

import (
	"strings"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/terminal"
)

// columnGap is what is between two columns of a table.
const columnGap = 2

// printTable prints rows of cells in columns, the first one as their heads. Wide characters
// count as two. Where a person looks, cells have the colours that paint names: parameters
// of an SGR sequence (ECMA-48), or "" for none.
func (a *app) printTable(rows [][]string, paint func(row, column int) string) {
	var widths []int
	for _, row := range rows {
		for column, cell := range row {
			if column == len(widths) {
				widths = append(widths, 0)
			}
			widths[column] = max(widths[column], terminal.Width(terminal.Escape(cell)))
		}
	}
	colors := a.color()
	var out strings.Builder
	for i, row := range rows {
		gap := 0
		for column, cell := range row {
			cell = terminal.Escape(cell)
			out.WriteString(strings.Repeat(" ", gap))
			gap = widths[column] - terminal.Width(cell) + columnGap
			if color := paint(i, column); colors && color != "" {
				cell = "\x1b[" + color + "m" + cell + "\x1b[0m"
			}
			out.WriteString(cell)
		}
		out.WriteString("\n")
	}
	_, _ = a.stdout.Write([]byte(out.String())) // There is nowhere to report an error.
}

// statusColor is the colour of an allocation's status.
func statusColor(o types.Allocation) string {
	const green, yellow, red, dim = "32", "33", "31", "2"
	switch {
	case noGame(o):
		return yellow
	case o.Status == types.AllocationListening:
		return green
	case o.Status == types.AllocationFailed, o.Status == types.AllocationOffline:
		return red
	case o.Status == types.AllocationPaused:
		return dim
	default:
		return yellow
	}
}

// printHints tells a person who looks at a terminal what to do about ports that players
// cannot use, and reports whether anybody looks. Scripts get the table alone.
func (a *app) printHints(allocations []types.Allocation) bool {
	if _, ok := a.terminal(); !ok {
		return false
	}
	offline := false
	for _, o := range allocations {
		switch {
		case noGame(o):
			a.printf("%s", noGameLine(o)+", or open the port where it listens: eclitunnel open "+string(o.Protocol)+" PORT")
		case o.Status == types.AllocationPaused:
			a.printf("%s %s is paused; open it again with: eclitunnel resume id:%d", o.Protocol, o.PublicAddress, o.ID)
		case o.Status == types.AllocationOffline && !offline:
			offline = true
			a.printf("players cannot join while the agent is offline; start it with: eclitunnel run")
		}
	}
	return true
}
