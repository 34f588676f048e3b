// Package face shows a running agent in a terminal: Render makes a picture of a snapshot,
// and a Screen draws one picture in the place of the last.
package face

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/terminal"
)

// Size is that of a terminal.
type Size struct{ Columns, Rows int }

// Style is what a terminal can show.
type Style struct{ Color, Unicode bool }

const (
	// narrow is the width below which a port takes two rows, and wide the one from which
	// its local target is shown too.
	narrow, wide = 64, 108
	// minPorts is how many rows ports have before anything else gets one that they need,
	// minNotes how many notes get then, and maxNotes the most.
	minPorts, minNotes, maxNotes = 13, 3, 10
	// minRows and minColumns are the least that is drawn for. Smaller terminals get a part.
	minRows, minColumns = 4, 16
)

// painter makes the rows of one picture.
type painter struct {
	style   Style
	columns int
	now     time.Time
}

// Render returns a picture of a snapshot: at most size.Rows-1 rows, each of at most
// size.Columns columns, so that the cursor has a row of its own below. Nothing but colours
// in it acts on the terminal. Gone says what has become of an agent that no longer runs;
// "": it runs.
func Render(s agent.Snapshot, gone string, size Size, style Style, now time.Time) []string {
	p := painter{style: style, columns: max(size.Columns, minColumns), now: now}
	rows := max(size.Rows, minRows) - 1
	out := p.head(s, gone)
	links := p.links(s)
	addresses := p.addresses(s)
	below := rows - len(out)
	notes := min(len(s.Notes), maxNotes)
	kept := 0 // For notes, links and addresses, each after an empty row.
	for _, n := range []int{min(notes, minNotes), len(links), len(addresses)} {
		if n > 0 && below >= kept+n+1+minPorts {
			kept += n + 1
		}
	}
	out = append(out, p.ports(s.Tunnels, below-kept)...)
	for _, section := range [][]string{links, addresses} {
		if len(section) > 0 && rows-len(out) >= len(section)+1 {
			out = append(append(out, ""), section...)
		}
	}
	if left := rows - len(out) - 1; left > 0 && notes > 0 {
		out = append(append(out, ""), p.notes(s.Notes[len(s.Notes)-min(notes, left):])...)
	}
	out = out[:min(len(out), max(size.Rows-1, 1))]
	if size.Columns < minColumns {
		for i := range out { // Colours would be cut in two.
			out[i] = terminal.Fit(plain(out[i]), max(size.Columns, 0), "")
		}
	}
	return out
}

// head says whose agent it is and how it is connected to the panel.
func (p painter) head(s agent.Snapshot, gone string) []string {
	name := terminal.Escape(cmp.Or(s.Device.Name, s.Device.ID.String()))
	c, texts := p.panel(s, gone)
	const program = "EcliTunnel  "
	title := p.paint(bold, strings.TrimSpace(program)) + "  "
	room := p.columns - len(program)
	var out []string
	for i, text := range texts {
		width := terminal.Width(text)
		switch {
		case room >= width+2+min(terminal.Width(name), 12):
			name = p.fit(name, room-width-2)
			out = []string{title + name + strings.Repeat(" ", room-terminal.Width(name)-width) + p.paint(c, text)}
		case width <= p.columns || i == len(texts)-1:
			out = []string{title + p.fit(name, room), p.paint(c, p.fit(text, p.columns))}
		default:
			continue // The next one is shorter.
		}
		break
	}
	if s.Panel.Reason != "" && gone == "" {
		out = append(out, p.wrap(dim, "", terminal.Escape(s.Panel.Reason), 2)...)
	}
	return append(out, "")
}

// panel describes the connection to the panel, in a long text and in shorter ones.
func (p painter) panel(s agent.Snapshot, gone string) (c color, texts []string) {
	host := terminal.Escape(strings.TrimPrefix(strings.TrimPrefix(s.Panel.URL, "https://"), "http://"))
	since := p.duration(s.Panel.Since)
	wait := p.mark(waiting) + " "
	switch {
	case gone != "":
		return yellow, []string{wait + terminal.Escape(gone)}
	case s.Panel.Standby:
		return yellow, []string{wait + "standing by: another agent serves", wait + "standing by"}
	case s.Panel.Connected:
		ok := p.mark(fine) + " connected"
		return green, []string{ok + " to " + host + p.dot() + since, ok + p.dot() + since, ok}
	case s.Panel.Reason != "":
		again := wait + "reconnecting to the panel"
		return yellow, []string{again + "; players stay" + p.dot() + since, again + "; players stay", again}
	default:
		return yellow, []string{wait + "connecting to " + host, wait + "connecting"}
	}
}

// ports returns the rows of public ports, at most so many. If there are too many ports
// those with trouble come first, and the last row says how many more there are.
func (p painter) ports(ports []agent.PortView, rows int) []string {
	if len(ports) == 0 {
		return []string{p.paint(dim, p.fit("No ports are open. Open one with: eclitunnel open tcp PORT", p.columns))}
	}
	w := p.widths(ports)
	all := make([][]string, len(ports))
	total := 0
	for i, port := range ports {
		all[i] = p.port(port, w)
		total += len(all[i])
	}
	if total <= rows {
		return slices.Concat(all...)
	}
	order := make([]int, len(ports))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return severity(ports[b]) - severity(ports[a]) })
	var out []string
	for shown, i := range order {
		if len(out)+len(all[i]) > rows-1 {
			return append(out, p.paint(dim, p.fit(p.more(ports, order[shown:]), p.columns)))
		}
		out = append(out, all[i]...)
	}
	return out
}

// severity orders ports by how much somebody has to do about them.
func severity(port agent.PortView) int {
	return slices.Index([]agent.PortState{agent.PortPaused, agent.PortOpen, agent.PortOpening, agent.PortNoGame, agent.PortFailed}, port.State)
}

// more says how many ports are not shown, and in which states.
func (p painter) more(ports []agent.PortView, hidden []int) string {
	counts := map[agent.PortState]int{}
	players := 0
	for _, i := range hidden {
		counts[ports[i].State]++
		players += ports[i].Players
	}
	var parts []string
	for _, state := range []agent.PortState{agent.PortFailed, agent.PortNoGame, agent.PortOpening, agent.PortOpen, agent.PortPaused} {
		if n := counts[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, strings.ToLower(stateWords[state])))
		}
	}
	text := fmt.Sprintf("%s %d more ports: %s", p.ellipsis(), len(hidden), strings.Join(parts, ", "))
	if players > 0 {
		text += p.dot() + count(players, "player", "players")
	}
	return text
}

// stateWords are the words of the console.
var stateWords = map[agent.PortState]string{
	agent.PortOpen: "Open", agent.PortNoGame: "Game does not answer", agent.PortOpening: "Opening",
	agent.PortFailed: "Failed", agent.PortPaused: "Paused",
}

// StateWords returns the words for a port's state, as the console says them.
func StateWords(s agent.PortState) string { return stateWords[s] }

// Reason says why a port is as it is, and what to do; "": nothing is wrong.
func Reason(port agent.PortView) string {
	switch port.State {
	case agent.PortFailed:
		return port.Reason
	case agent.PortNoGame:
		return port.TargetReason
	default:
		return ""
	}
}

// widths are those of the columns of ports.
type widths struct{ name, address, target, players int }

func (p painter) widths(ports []agent.PortView) (w widths) {
	for _, port := range ports {
		w.name = max(w.name, terminal.Width(title(port)))
		w.address = max(w.address, terminal.Width(address(port)))
		w.target = max(w.target, terminal.Width(terminal.Escape(port.LocalAddress)))
		if p.traffic(port) != "" {
			w.players = max(w.players, terminal.Width(p.players(port)))
		}
	}
	const mark, gap, minName = 2, 2, 8
	up, down := p.upDown()
	rates := len("999 kB/s  999 kB/s ") + 1 + terminal.Width(up+down)
	left := p.columns - mark - 2*gap - max(w.players+gap+rates, terminal.Width(stateWords[agent.PortNoGame]))
	if p.columns < wide {
		w.target = 0
	} else {
		w.target = min(w.target, 24)
		left -= w.target + 2*gap // With the arrow.
	}
	w.address = min(w.address, max(minName, left-min(w.name, minName)))
	w.name = min(w.name, max(minName, left-w.address))
	return w
}

// title is what a port is called, escaped.
func title(port agent.PortView) string {
	if port.Name != "" {
		return terminal.Escape(port.Name)
	}
	if _, number, err := net.SplitHostPort(port.PublicAddress); err == nil {
		return "port " + terminal.Escape(number)
	}
	return "(no name)"
}

func address(port agent.PortView) string {
	return string(port.Protocol) + " " + terminal.Escape(port.PublicAddress)
}

// fitAddress returns a port's public address in at most so many columns. Its number stays:
// no other port has it.
func (p painter) fitAddress(port agent.PortView, columns int) string {
	whole := address(port)
	at := strings.LastIndexByte(whole, ':')
	if terminal.Width(whole) <= columns || at < 0 || len(whole)-at+len(port.Protocol)+4 > columns {
		return p.fit(whole, columns)
	}
	return p.fit(whole[:at], columns-(len(whole)-at)) + whole[at:]
}

// port returns the rows of one port.
func (p painter) port(port agent.PortView, w widths) []string {
	m, c := p.portMark(port)
	mark := p.paint(c, m) + " "
	busy := p.traffic(port)
	players := p.players(port)
	if p.columns < narrow {
		players = p.fit(players, p.columns*2/3)
		name := p.fit(title(port), p.columns-2-2-terminal.Width(players))
		gap := p.columns - 2 - terminal.Width(name) - terminal.Width(players)
		rows := []string{
			mark + p.paint(bold, name) + strings.Repeat(" ", gap) + p.paint(playersColor(port), players),
			"  " + p.paint(dim, p.fitAddress(port, p.columns-2)),
		}
		if busy != "" {
			rows = append(rows, "  "+p.fit(busy, p.columns-2))
		}
		return append(rows, p.trouble(port)...)
	}
	row := mark + p.cell(bold, title(port), w.name) + "  " + p.cell(none, p.fitAddress(port, w.address), w.address) + "  "
	used := 2 + w.name + 2 + w.address + 2
	if w.target > 0 {
		row += p.cell(dim, p.arrow()+" "+terminal.Escape(port.LocalAddress), w.target+2) + "  "
		used += w.target + 4
	}
	left := p.columns - used
	if busy == "" || left <= w.players+2 {
		row += p.paint(playersColor(port), p.fit(players, left))
	} else {
		row += p.cell(playersColor(port), players, w.players) + "  " + p.fit(busy, left-w.players-2)
	}
	return append([]string{strings.TrimRight(row, " ")}, p.trouble(port)...)
}

// players says how many play, or why nobody can.
func (p painter) players(port agent.PortView) string {
	if port.State == agent.PortOpen || port.Players > 0 {
		return count(port.Players, "player", "players")
	}
	return stateWords[port.State]
}

func playersColor(port agent.PortView) color {
	switch {
	case port.State == agent.PortFailed:
		return red
	case port.State == agent.PortNoGame, port.State == agent.PortOpening:
		return yellow
	case port.Players > 0:
		return none
	default:
		return dim
	}
}

// trouble says below a port what is wrong with it.
func (p painter) trouble(port agent.PortView) []string {
	reason := Reason(port)
	if reason == "" {
		return nil
	}
	_, c := p.portMark(port)
	return p.wrap(c, "  ", terminal.Escape(reason), 2)
}

// traffic is what a port carries; "": nothing yet.
func (p painter) traffic(port agent.PortView) string {
	if port.FromPlayers+port.ToPlayers == 0 {
		return ""
	}
	up, down := p.upDown()
	if port.FromPlayersPerSecond+port.ToPlayersPerSecond < 1 {
		return Bytes(float64(port.FromPlayers+port.ToPlayers)) + " so far"
	}
	return fmt.Sprintf("%s %-8s  %s %s", up, Bytes(port.ToPlayersPerSecond)+"/s", down, Bytes(port.FromPlayersPerSecond)+"/s")
}

// links says how tunnel servers are connected.
func (p painter) links(s agent.Snapshot) []string {
	var out []string
	for _, l := range s.Servers {
		host := terminal.Escape(l.Address)
		if h, _, err := net.SplitHostPort(l.Address); err == nil {
			host = terminal.Escape(h)
		}
		switch l.State {
		case agent.LinkUp:
			text := "tunnel server " + host
			if l.RoundTripMs > 0 {
				text += p.dot() + milliseconds(l.RoundTripMs)
			}
			if l.UplinkLimit > 0 {
				text += p.dot() + "uplink paced to " + Bytes(float64(l.UplinkLimit)) + "/s"
			}
			out = append(out, p.paint(green, p.mark(fine))+" "+p.paint(dim, p.fit(text, p.columns-2)))
		case agent.LinkDown:
			out = append(out, p.paint(red, p.mark(failing))+" "+p.fit(terminal.Escape(cmp.Or(l.Reason, "tunnel server "+host)), p.columns-2))
		default:
			out = append(out, p.paint(yellow, p.mark(waiting))+" "+p.paint(dim, p.fit("connecting to the tunnel server "+host, p.columns-2)))
		}
	}
	return out
}

// addresses gives the public hosts of UDP ports as IP addresses, for games that take no
// name.
func (p painter) addresses(s agent.Snapshot) []string {
	var out, said []string
	for _, port := range s.Tunnels {
		host, _, err := net.SplitHostPort(port.PublicAddress)
		if err != nil || port.Protocol != types.ProtocolUDP || slices.Contains(said, host) || net.ParseIP(host) != nil || len(port.PublicAddresses) == 0 {
			continue
		}
		said = append(said, host)
		text := terminal.Escape(host + " as an IP address: " + strings.Join(port.PublicAddresses, ", "))
		out = append(out, p.paint(dim, p.fit(text, p.columns)))
	}
	return out
}

// notes are what happened lately.
func (p painter) notes(notes []agent.Note) []string {
	var out []string
	for _, n := range notes {
		text := terminal.Escape(n.Text)
		stamp := n.Time.Local().Format(time.TimeOnly)
		c := dim
		if n.Trouble {
			c = yellow
		}
		out = append(out, p.paint(dim, stamp)+"  "+p.paint(c, p.fit(text, p.columns-len(stamp)-2)))
	}
	return out
}
