package events

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

const (
	// usageTopic is the beginning of the topic of usage, before the id of a tunnel server.
	usageTopic = "usage:"
	// maxUsage is the number of allocations in one event.
	maxUsage = 500
)

// Usage is what a tunnel server has last reported of an allocation.
type Usage struct {
	types.LiveUsage
	UserID, OrganisationID *int64 // Who owns the allocation.
}

// sendUsage sends what the tunnel servers of a notice have reported. Usage is not in the log: who misses it gets
// the next, after seconds.
func (h *Hub) sendUsage(ctx context.Context, notice db.LiveNotice) {
	var servers []uuid.UUID
	for _, topic := range notice.Topics {
		if name, ok := strings.CutPrefix(topic, usageTopic); ok {
			if id, err := uuid.Parse(name); err == nil {
				servers = append(servers, id)
			}
		}
	}
	if len(servers) == 0 || h.opts.Usage == nil || !h.needed() {
		return
	}
	usage, err := h.opts.Usage(ctx, servers)
	if err != nil {
		h.opts.Logger.DebugContext(ctx, "usage was not sent", slog.Any("error", err))
		return
	}
	if len(usage) == 0 {
		return
	}
	byOwner := map[owner][]types.LiveUsage{}
	all := make([]types.LiveUsage, len(usage))
	for i, of := range usage {
		all[i] = of.LiveUsage
		whose := ownerOf(of.UserID, of.OrganisationID)
		byOwner[whose] = append(byOwner[whose], of.LiveUsage)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var forAll [][]byte // The same for every admin.
	for s := range h.subscribers {
		switch {
		case !s.admitted || !s.kinds[types.KindOfUsage]:
		case s.view.all:
			if forAll == nil {
				forAll = h.usageFrames(ctx, all)
			}
			h.pushUsage(s, forAll)
		default:
			var own []types.LiveUsage
			if s.view.userID != 0 {
				own = append(own, byOwner[owner{user: s.view.userID}]...)
			}
			for _, organisation := range s.view.organisations {
				own = append(own, byOwner[owner{organisation: organisation}]...)
			}
			h.pushUsage(s, h.usageFrames(ctx, own))
		}
	}
}

// pushUsage puts frames into a queue. One that is full goes without: its subscriber is told of the events that it
// misses, and not of usage.
func (h *Hub) pushUsage(s *subscriber, frames [][]byte) {
	for _, frame := range frames {
		if s.push(frame) {
			h.stats.Events++
		}
	}
}

// usageFrames returns events without ids, since they are at no place in the log.
func (h *Hub) usageFrames(ctx context.Context, usage []types.LiveUsage) [][]byte {
	var frames [][]byte
	for begin := 0; begin < len(usage); begin += maxUsage {
		text, err := json.Marshal(struct {
			Type  string            `json:"type"`
			At    time.Time         `json:"at"`
			Usage []types.LiveUsage `json:"usage"`
		}{string(types.EventUsage), h.opts.Now().UTC(), usage[begin:min(begin+maxUsage, len(usage))]})
		if err != nil {
			h.opts.Logger.ErrorContext(ctx, "usage was not sent", slog.Any("error", err))
			return nil
		}
		frames = append(frames, frame("", string(types.EventUsage), text))
	}
	return frames
}
