package wire

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// LinkType is the type of a message on a link.
type LinkType string

// The types of messages on a link.
const (
	LinkWelcome LinkType = "welcome" // The first message.
	LinkDial    LinkType = "dial"    // Asks the client to open data connections.
)

// LinkMessage is a message on a link, from the tunnel server to the tunnel client.
type LinkMessage struct {
	Type LinkType `json:"type"`
	// Secret authenticates the data connections of this link. For LinkWelcome.
	Secret string `json:"secret,omitempty"`
	// Kind and Count tell which data connections to open, and how many. For LinkDial.
	Kind  Kind `json:"kind,omitempty"`
	Count int  `json:"count,omitempty"`
	// Session is the name of a UDP session. For LinkDial of KindDatagram: the session
	// that the data connection is for. For LinkWelcome: the session that the client has
	// resumed; "" if there is none.
	Session string `json:"carrier,omitempty"`
	// UDP is the port on which the server receives sealed packets; 0 if it does not.
	// For LinkDial of KindDatagram.
	UDP uint16 `json:"udp,omitempty"`
}

// ValidSessionName reports whether name is a valid name of a UDP session.
func ValidSessionName(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != "" && len(name) <= MaxSessionName
}

// DecodeLink decodes a message on a link. It does not check a message of an unknown
// type, which the caller ignores. Its errors wrap ErrMalformed.
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
	case m.Type == LinkDial && m.Kind == KindDatagram && !ValidSessionName(m.Session),
		m.Type == LinkWelcome && m.Session != "" && !ValidSessionName(m.Session):
		return LinkMessage{}, fmt.Errorf("%w: UDP session %q", ErrMalformed, m.Session)
	}
	return m, nil
}

// ControlType is the type of a text message on a stream data connection.
type ControlType string

// The types of text messages on a stream data connection.
const (
	ControlOpen  ControlType = "open"
	ControlFin   ControlType = "fin"
	ControlReset ControlType = "reset"
	ControlIdle  ControlType = "idle"
)

// Control is a text message on a stream data connection.
type Control struct {
	Type ControlType `json:"type"`
	// Allocation is the id of the allocation. For ControlOpen.
	Allocation int64 `json:"allocation,omitempty"`
	// Source is the player's address. For ControlOpen.
	Source netip.AddrPort `json:"source,omitzero"`
	// Destination is the public address that the player connected to. For ControlOpen.
	Destination netip.AddrPort `json:"destination,omitzero"`
}

// The messages without fields are the most frequent ones. They are not encoded or
// decoded as JSON.
const (
	finText   = `{"type":"fin"}`
	resetText = `{"type":"reset"}`
	idleText  = `{"type":"idle"}`
)

// AppendControl appends the encoding of c to b and returns the extended buffer.
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

// DecodeControl decodes a text message on a stream data connection. Its errors wrap
// ErrMalformed.
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
