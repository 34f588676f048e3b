package events

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

const (
	// maxUsage is the number of allocations in one event.
	maxUsage = 500
	// usageAge is the age of usage that is not sent any more.
	usageAge = time.Minute
)

// liveUsage is the end of the time, by tunnel server and allocation, whose usage was sent last.
type liveUsage map[uuid.UUID]map[int64]time.Time

// added returns those of a tunnel server's rows that were not sent yet, and notes them. Parts of one report come
// with a notice each.
func (l liveUsage) added(server uuid.UUID, rows []db.UsageNow, now time.Time) []db.UsageNow {
	sent := l[server]
	if sent == nil {
		sent = map[int64]time.Time{}
		l[server] = sent
	}
	maps.DeleteFunc(sent, func(_ int64, at time.Time) bool { return now.Sub(at) > usageAge })
	added := rows[:0]
	for _, row := range rows {
		if row.ReportedAt.After(sent[row.AllocationID]) {
			sent[row.AllocationID] = row.ReportedAt
			added = append(added, row)
		}
	}
	return added
}

// sendUsage sends what the tunnel servers of a notice have reported. Usage is not in the log: who misses it gets
// the next, after seconds.
func (h *Hub) sendUsage(ctx context.Context, notice db.LiveNotice) {
	if !h.needed() {
		return
	}
	now := h.opts.Now()
	var usage []db.UsageNow
	for _, topic := range notice.Topics {
		name, ok := strings.CutPrefix(topic, db.TopicUsage)
		server, err := uuid.Parse(name)
		if !ok || err != nil {
			continue
		}
		rows, err := h.opts.Store.UsageNow(ctx, server, now.Add(-usageAge))
		if err != nil {
			h.opts.Logger.DebugContext(ctx, "usage was not sent", slog.Any("error", err))
			continue
		}
		usage = append(usage, h.usage.added(server, rows, now)...)
	}
	if len(usage) == 0 {
		return
	}
	byOwner := map[owner][]types.LiveUsage{}
	all := make([]types.LiveUsage, len(usage))
	for i, of := range usage {
		all[i] = types.LiveUsage{
			AllocationID: of.AllocationID, Players: of.Players, Seconds: of.Seconds, Joins: of.Joins,
			DownloadBytes: of.DownloadBytes, UploadBytes: of.UploadBytes,
			DownloadDatagrams: of.DownloadDatagrams, UploadDatagrams: of.UploadDatagrams,
		}
		whose := ownerOf(of.UserID, of.OrganisationID)
		byOwner[whose] = append(byOwner[whose], all[i])
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
