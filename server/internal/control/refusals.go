package control

import (
	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/publicport"
)

// otherReason is what the panel calls reasons that it does not know. A tunnel server could
// name any number of them, and each would be a row.
const otherReason = "other"

// openPort is a public port of an allocation.
type openPort struct {
	allocation int64
	port       int
}

// addRefusals queues what a tunnel server has refused. It ignores allocations that were not
// sent to it, and those that have changed since the report's revision. It is called with mu
// held.
func (r *reports) addRefusals(report types.StatusReport) {
	if report.Refusals == nil {
		return
	}
	for _, of := range *report.Refusals {
		if e, ok := r.known[of.ID]; ok && report.Revision >= e.since && e.client != uuid.Nil {
			r.refuse(openPort{of.ID, e.port}, db.Refusals{Players: knownReasons(of.Players), Datagrams: knownReasons(of.Datagrams)})
		}
	}
}

// refuse adds to what is queued for a port. It is called with mu held.
func (r *reports) refuse(of openPort, refused db.Refusals) {
	sum, ok := r.refusals[of]
	if !ok {
		sum = db.NewRefusals()
		r.refusals[of] = sum
	}
	sum.Add(refused)
}

func knownReasons(counts types.RefusalCounts) map[string]int64 {
	known := make(map[string]int64, len(counts))
	for reason, n := range counts {
		if !publicport.Refusal(reason).Valid() {
			reason = otherReason
		}
		known[reason] = db.SumCounts(known[reason], n)
	}
	return known
}
