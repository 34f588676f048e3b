package events

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// logPart is the part of the log that the reader has, which ends where it has read to.
type logPart struct {
	warm    bool // It follows the log. If it does not, the rest means nothing.
	at      position
	entries []*entry // Without gaps, up to at.
}

// begin is the position before the first entry.
func (l *logPart) begin() int64 { return l.at.id - int64(len(l.entries)) }

// follow reads the log until ctx ends.
func (h *Hub) follow(ctx context.Context, notices <-chan db.LiveNotice) {
	poll := time.NewTicker(pollPause)
	defer poll.Stop()
	var failed bool
	for {
		select {
		case <-ctx.Done():
			return
		case notice, ok := <-notices:
			if !ok {
				return
			}
			h.sendUsage(ctx, notice)
			if !notice.Has(db.TopicEvents) {
				continue
			}
		case <-h.wake:
		case <-poll.C:
		}
		if !h.needed() {
			continue
		}
		err := h.advance(ctx)
		if err != nil && ctx.Err() == nil {
			if !failed { // Once for each outage.
				h.opts.Logger.WarnContext(ctx, "events were not read; they come later", slog.Any("error", err))
			}
			select {
			case <-time.After(retryPause):
				h.nudge()
			case <-ctx.Done():
			}
		}
		failed = err != nil
	}
}

// needed reports whether the log has to be read, and forgets it once nobody has followed it for long.
func (h *Hub) needed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch now := h.opts.Now(); {
	case len(h.subscribers) > 0:
		h.lastUse = now
		return true
	case now.Sub(h.lastUse) >= idle:
		h.log = logPart{}
	}
	return h.log.warm
}

// advance reads what is new, hands it to the subscribers, and lets in those that wait.
func (h *Hub) advance(ctx context.Context) error {
	// Before the log is read: what another replica has sent to these is in it.
	h.mu.Lock()
	waiting := h.joining
	h.joining = nil
	h.mu.Unlock()
	err := h.catchUp(ctx)
	if err == nil {
		waiting, err = h.admit(ctx, waiting)
	}
	if len(waiting) > 0 { // The next time.
		h.mu.Lock()
		h.joining = append(waiting, h.joining...)
		h.mu.Unlock()
	}
	return err
}

// catchUp reads what is new.
func (h *Hub) catchUp(ctx context.Context) error {
	if !h.log.warm {
		log, err := h.opts.Store.EventsAfter(ctx, 0, 0)
		if err != nil {
			return err
		}
		h.restart(log)
	}
	for {
		log, err := h.opts.Store.EventsAfter(ctx, h.log.at.id, batch)
		if err != nil {
			return err
		}
		if log.Epoch != h.log.at.epoch || !log.Has(h.log.at.id) {
			h.restart(log)
			continue
		}
		if len(log.Events) == 0 {
			return nil
		}
		entries, err := h.read(ctx, log.Events)
		if err != nil {
			return err
		}
		h.deliver(ctx, entries)
		if len(log.Events) < batch {
			return nil
		}
	}
}

// restart goes on at the end of the log, and tells subscribers that events are missing.
func (h *Hub) restart(log db.EventLog) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.log
	h.log = logPart{warm: true, at: position{log.Epoch, log.Newest}}
	if !before.warm {
		return
	}
	for s := range h.subscribers {
		if s.admitted {
			h.resync(s, log.Newest)
		}
	}
}

// deliver adds entries to the log, and puts them into the queues of those who may see them.
func (h *Hub) deliver(ctx context.Context, entries []*entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range entries {
		h.log.at.id = e.id
		h.log.entries = append(h.log.entries, e)
		for s := range h.subscribers {
			if !s.admitted {
				continue
			}
			if frame := h.frameFor(ctx, s, e); frame != nil && !s.push(frame) {
				h.resync(s, e.id)
			}
		}
	}
	if surplus := len(h.log.entries) - maxReplay; surplus > 0 {
		h.log.entries = slices.Clone(h.log.entries[surplus:]) // What was before is freed.
	}
}

// frameFor returns what a subscriber gets of an entry, or nil if it may not see it or does not want it. h.mu is held.
func (h *Hub) frameFor(ctx context.Context, s *subscriber, e *entry) []byte {
	if !s.kinds[kindOf(e.kind)] {
		return nil
	}
	what := e.changeFor(s.view)
	if what == nothing {
		return nil
	}
	frame, err := e.frame(h.log.at.epoch, what)
	if err != nil {
		h.opts.Logger.ErrorContext(ctx, "event was not sent", slog.Any("error", err))
		return nil
	}
	h.stats.Events++
	return frame
}

// resync gives up what is in the queue of a subscriber, and has it read everything again. Its events go on after
// an id. h.mu is held.
func (h *Hub) resync(s *subscriber, after int64) {
	h.stats.Resyncs++
	s.replace(h.event(position{h.log.at.epoch, after}.String(), string(types.EventResync)))
}

// admit gives subscribers their place in the log. It returns those that have none yet, because of an error.
func (h *Hub) admit(ctx context.Context, waiting []*subscriber) ([]*subscriber, error) {
	for i, s := range waiting {
		if err := h.admitOne(ctx, s); err != nil {
			return waiting[i:], err
		}
	}
	return nil, nil
}

// admitOne admits a subscriber, with what it has missed.
func (h *Hub) admitOne(ctx context.Context, s *subscriber) error {
	from, known := h.log.at, s.after == ""
	if asked, ok := parsePosition(s.after); ok && asked.epoch == from.epoch {
		var err error
		if known, err = h.reachBack(ctx, asked.id); err != nil {
			return err
		}
		from = asked
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s.admitted = true
	if !known {
		// Without a position: who loses the connection right here has still lost events.
		s.start(h.event("", string(types.EventReady)), [][]byte{h.event(h.log.at.String(), string(types.EventResync))})
		h.stats.Resyncs++
		return nil
	}
	var missed [][]byte
	for _, e := range h.log.entries[from.id-h.log.begin():] {
		if frame := h.frameFor(ctx, s, e); frame != nil {
			missed = append(missed, frame)
		}
	}
	s.start(h.event(from.String(), string(types.EventReady)), missed)
	return nil
}

// reachBack reads the events after an id that the reader does not have, before those that it has. It reports
// whether all of them are there.
func (h *Hub) reachBack(ctx context.Context, id int64) (bool, error) {
	begin := h.log.begin()
	if id >= begin {
		return id <= h.log.at.id, nil
	}
	if h.log.at.id-id > maxReplay {
		return false, nil
	}
	log, err := h.opts.Store.EventsAfter(ctx, id, int(begin-id))
	switch {
	case err != nil:
		return false, err
	case log.Epoch != h.log.at.epoch || !log.Has(id):
		return false, nil
	}
	entries, err := h.read(ctx, log.Events)
	if err != nil {
		return false, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log.entries = append(entries, h.log.entries...)
	return true, nil
}

// event returns the frame of an event that is about the stream itself.
func (h *Hub) event(id, name string) []byte {
	text, _ := json.Marshal(data{Type: name, At: h.opts.Now().UTC()}) // It has nothing that can fail.
	return frame(id, name, text)
}
