package control

import (
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/tracing"
)

// post queues a message for the device, as channel.Conn.Send does, and makes its span.
func (s *session) post(message any) error {
	began := time.Now()
	err := s.conn.Send(message)
	outcome := tracing.Queued
	if err != nil {
		outcome = tracing.NotSent
	}
	s.trace(tracing.Sent, message, outcome, began)
	return err
}

// received makes the span of a message from the device, which was read at began and has
// been handled. message is nil if it could not be decoded.
func (s *session) received(message any, accepted bool, began time.Time) {
	outcome := tracing.Accepted
	if !accepted {
		outcome = tracing.Refused
	}
	s.trace(tracing.Received, message, outcome, began)
}

func (s *session) trace(direction tracing.Direction, message any, outcome string, began time.Time) {
	if s.hub.opts.Traces == nil {
		return
	}
	s.hub.opts.Traces.Message(tracing.Message{
		Direction: direction, Type: messageType(message), Device: s.device, Kind: string(s.kind), Outcome: outcome, Began: began,
	})
}

// messageType returns the type of a control-channel message, and an empty string for
// anything else.
func messageType(message any) string {
	switch message.(type) {
	case types.Hello:
		return string(types.TypeHello)
	case types.StatusReport:
		return string(types.TypeStatus)
	case types.ConnectionsReport:
		return string(types.TypeConnections)
	case types.ConnectionsClose:
		return string(types.TypeConnectionsClose)
	case types.ResyncRequest:
		return string(types.TypeResync)
	case types.ClientSnapshot:
		return string(types.TypeClientSnapshot)
	case types.ClientChange:
		return string(types.TypeClientChange)
	case types.ServerSnapshot:
		return string(types.TypeServerSnapshot)
	case types.ServerChange:
		return string(types.TypeServerChange)
	case types.UsageReport:
		return string(types.TypeUsage)
	case types.UsageAck:
		return string(types.TypeUsageAck)
	case types.Probe:
		return string(types.TypeProbe)
	case types.ProbeResult:
		return string(types.TypeProbeResult)
	default:
		return ""
	}
}
