package control

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// maxPlayers is the largest number of players that the database can hold.
const maxPlayers = math.MaxInt32

// maxReasons is the contract's largest number of RefusalCounts.
const maxReasons = 64

var fingerprintPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// violation is a violation of the protocol by the device. It closes the channel with
// its code and reason.
type violation struct {
	code   int
	reason string
}

func (v *violation) Error() string { return v.reason }

// protocolError is a message that is not a control message.
func protocolError(reason string) error {
	return &violation{websocket.CloseProtocolError, reason}
}

// policyViolation is a control message that breaks a rule.
func policyViolation(format string, args ...any) error {
	return &violation{websocket.ClosePolicyViolation, fmt.Sprintf(format, args...)}
}

// decode decodes a message from a device: a types.Hello, types.StatusReport,
// types.ConnectionsReport, types.ResyncRequest, types.UsageReport or types.ProbeResult within the limits of its schema.
// For any other input the error is a *violation.
func decode(data []byte) (any, error) {
	var message types.ControlMessage
	if err := json.Unmarshal(data, &message); err != nil {
		return nil, protocolError("not JSON")
	}
	value, err := message.ValueByDiscriminator()
	if err != nil {
		return nil, protocolError("not a control message")
	}
	switch v := value.(type) {
	case types.Hello:
		return v, checkHello(v)
	case types.StatusReport:
		return v, checkReport(v)
	case types.ConnectionsReport:
		return v, checkConnections(v)
	case types.ResyncRequest:
		return v, nil
	case types.UsageReport:
		return v, checkUsage(v)
	case types.ProbeResult:
		return v, checkProbeResult(v)
	default:
		return v, policyViolation("only the panel may send this message")
	}
}

func checkHello(hello types.Hello) error {
	if !text(hello.AgentVersion, types.MaxHelloAgentVersion) {
		return policyViolation("agentVersion: at most %d characters, no NUL", types.MaxHelloAgentVersion)
	}
	if !text(hello.Platform, types.MaxHelloPlatform) {
		return policyViolation("platform: at most %d characters, no NUL", types.MaxHelloPlatform)
	}
	if relay := hello.Relay; relay != nil {
		if relay.Port < 1 || relay.Port > types.MaxPort {
			return policyViolation("relay.port: 1 to %d", types.MaxPort)
		}
		if !fingerprintPattern.MatchString(relay.Fingerprint) {
			return policyViolation("relay.fingerprint: 64 lower-case hexadecimal digits")
		}
	}
	return nil
}

func checkReport(report types.StatusReport) error {
	if len(report.Allocations) > types.MaxStatusReportAllocations {
		return policyViolation("allocations: at most %d", types.MaxStatusReportAllocations)
	}
	if n := report.Players; n != nil && (*n < 0 || *n > maxPlayers) {
		return policyViolation("players: 0 to %d", maxPlayers)
	}
	for _, a := range report.Allocations {
		if !a.State.Valid() {
			return policyViolation("state: ready or failed")
		}
		if a.Reason != nil && !text(*a.Reason, types.MaxAllocationReportReason) {
			return policyViolation("reason: at most %d characters, no NUL", types.MaxAllocationReportReason)
		}
		if a.Target != nil && !a.Target.Valid() {
			return policyViolation("target: unknown, up or down")
		}
		if a.TargetReason != nil && !text(*a.TargetReason, types.MaxAllocationReportTargetReason) {
			return policyViolation("targetReason: at most %d characters, no NUL", types.MaxAllocationReportTargetReason)
		}
	}
	return checkRefusals(report.Refusals)
}

func checkRefusals(refusals *[]types.AllocationRefusals) error {
	if refusals == nil {
		return nil
	}
	if len(*refusals) > types.MaxStatusReportRefusals {
		return policyViolation("refusals: at most %d", types.MaxStatusReportRefusals)
	}
	for _, of := range *refusals {
		for _, counts := range []types.RefusalCounts{of.Players, of.Datagrams} {
			if len(counts) > maxReasons {
				return policyViolation("refusals: at most %d reasons", maxReasons)
			}
			for _, n := range counts {
				if n < 0 {
					return policyViolation("refusals: counts are at least 0")
				}
			}
		}
	}
	return nil
}

// text reports whether s can be stored. Postgres does not accept NUL in text, and a
// rejected report would be retried forever.
func text(s string, limit int) bool {
	return utf8.RuneCountInString(s) <= limit && !strings.ContainsRune(s, 0)
}
