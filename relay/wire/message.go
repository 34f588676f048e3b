package wire

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// LinkType tells the messages of a link apart.
type LinkType string

// The messages of a link.
const (
	LinkWelcome LinkType = "welcome"
	LinkDial    LinkType = "dial"
)

// LinkMessage is one message on a link.
type LinkMessage struct {
	Type LinkType `json:"type"`
	// Secret authorises data connections of this link. Of LinkWelcome.
	Secret string `json:"secret,omitempty"`
	// Kind and Count say which data connections to open. Of LinkDial.
	Kind  Kind `json:"kind,omitempty"`
	Count int  `json:"count,omitempty"`
	// Carrier is the one whose data connection to open, or, of LinkWelcome, that
	// the server holds still. UDP is where it takes sealed packets; 0: nowhere.
	Carrier string `json:"carrier,omitempty"`
	UDP     uint16 `json:"udp,omitempty"`
}

// ValidCarrier reports whether name can be a carrier's.
func ValidCarrier(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != "" && len(name) <= MaxCarrier
}

// DecodeLink reads a message of a link. A message of an unknown type is
// returned as it is, for the caller to ignore.
func DecodeLink(data []byte) (LinkMessage, error) {
	var m LinkMessage
	if err := json.Unmarshal(data, &m); err != nil {
		return LinkMessage{}, fmt.Errorf("%w: link message: %w", ErrMalformed, err)
	}
	switch {
	case m.Type == LinkWelcome && m.Secret == "":
		return LinkMessage{}, fmt.Errorf("%w: welcome without a secret", ErrMalformed)
	case m.Type == LinkDial && (!m.Kind.Valid() || m.Count < 1):
		return LinkMessage{}, fmt.Errorf("%w: dial of %d %q", ErrMalformed, m.Count, m.Kind)
	case m.Type == LinkDial && m.Kind == KindDatagram && !ValidCarrier(m.Carrier),
		m.Type == LinkWelcome && m.Carrier != "" && !ValidCarrier(m.Carrier):
		return LinkMessage{}, fmt.Errorf("%w: carrier %q", ErrMalformed, m.Carrier)
	}
	return m, nil
}

// ControlType tells the text messages of a stream data connection apart.
type ControlType string

// The text messages of a stream data connection.
const (
	ControlOpen  ControlType = "open"
	ControlFin   ControlType = "fin"
	ControlReset ControlType = "reset"
	ControlIdle  ControlType = "idle"
)

// Control is a text message of a stream data connection.
type Control struct {
	Type ControlType `json:"type"`
	// Allocation, Source (the player's address) and Destination (the public
	// address the player reached) belong to ControlOpen.
	Allocation  int64          `json:"allocation,omitempty"`
	Source      netip.AddrPort `json:"source,omitzero"`
	Destination netip.AddrPort `json:"destination,omitzero"`
}

// The messages without content are by far the most frequent: one a stream and
// more. They are neither built nor parsed.
const (
	finText   = `{"type":"fin"}`
	resetText = `{"type":"reset"}`
	idleText  = `{"type":"idle"}`
)

// AppendControl appends the encoding of c to b.
func AppendControl(b []byte, c Control) ([]byte, error) {
	switch c.Type {
	case ControlFin:
		return append(b, finText...), nil
	case ControlReset:
		return append(b, resetText...), nil
	case ControlIdle:
		return append(b, idleText...), nil
	}
	data, err := json.Marshal(c)
	if err != nil {
		return b, fmt.Errorf("marshal %s: %w", c.Type, err)
	}
	return append(b, data...), nil
}

// DecodeControl reads a text message of a stream data connection.
func DecodeControl(data []byte) (Control, error) {
	switch string(data) {
	case finText:
		return Control{Type: ControlFin}, nil
	case resetText:
		return Control{Type: ControlReset}, nil
	case idleText:
		return Control{Type: ControlIdle}, nil
	}
	if len(data) > MaxControl {
		return Control{}, fmt.Errorf("%w: control message of %d bytes", ErrMalformed, len(data))
	}
	var c Control
	if err := json.Unmarshal(data, &c); err != nil {
		return Control{}, fmt.Errorf("%w: control message: %w", ErrMalformed, err)
	}
	switch c.Type {
	case ControlOpen:
		if c.Allocation < 1 || !c.Source.IsValid() || !c.Destination.IsValid() {
			return Control{}, fmt.Errorf("%w: open without allocation, source or destination", ErrMalformed)
		}
		return c, nil
	case ControlFin, ControlReset, ControlIdle:
		return Control{Type: c.Type}, nil
	}
	return Control{}, fmt.Errorf("%w: control message of type %q", ErrMalformed, c.Type)
}
