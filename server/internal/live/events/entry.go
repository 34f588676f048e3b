package events

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
)

// entry is an event of the log with what it is about. Only the reader uses it.
type entry struct {
	id          int64
	at          time.Time
	kind        string // device or allocation, or the whole type of another event.
	what        change
	owner       owner // When it was committed.
	transferred bool
	previous    owner // Of a transfer.

	deviceID     *uuid.UUID
	allocationID *int64
	// object is the device or allocation as the API shows it now, and current whose it is now; the object is
	// nil if it has gone.
	object  json.RawMessage
	current owner
	payload json.RawMessage // Further fields of another event.

	frames [changes][]byte // As they are sent, by what they are to the subscriber; nil until needed.
}

// data is an event as JSON. The fields are those of the contract's schemas.
type data struct {
	Type         string          `json:"type"`
	At           time.Time       `json:"at"`
	DeviceID     *uuid.UUID      `json:"deviceId,omitempty"`
	Device       json.RawMessage `json:"device,omitempty"`
	AllocationID *int64          `json:"allocationId,omitempty"`
	Allocation   json.RawMessage `json:"allocation,omitempty"`
}

// read returns events with what they are about, which takes a query for devices and one for allocations.
func (h *Hub) read(ctx context.Context, events []db.LoggedEvent) ([]*entry, error) {
	devices, allocations := map[uuid.UUID]*object{}, map[int64]*object{}
	for _, e := range events {
		switch what := changeOf(e); {
		case what == asIs || what == deleted:
		case e.AllocationID != nil:
			allocations[*e.AllocationID] = nil
		default:
			devices[*e.DeviceID] = nil
		}
	}
	if err := h.readDevices(ctx, devices); err != nil {
		return nil, err
	}
	if err := h.readAllocations(ctx, allocations); err != nil {
		return nil, err
	}
	entries := make([]*entry, len(events))
	for i, e := range events {
		entries[i] = newEntry(e, devices, allocations)
	}
	return entries, nil
}

// object is a device or an allocation.
type object struct {
	json  json.RawMessage
	owner owner
}

func (h *Hub) readDevices(ctx context.Context, devices map[uuid.UUID]*object) error {
	if len(devices) == 0 {
		return nil
	}
	rows, err := h.opts.Store.DevicesByID(ctx, keysOf(devices))
	if err != nil {
		return err
	}
	for _, row := range rows {
		text, err := json.Marshal(h.opts.Device(row))
		if err != nil {
			return fmt.Errorf("device %s: %w", row.ID, err)
		}
		devices[row.ID] = &object{text, ownerOf(row.OwnerID, row.OrganisationID)}
	}
	return nil
}

func (h *Hub) readAllocations(ctx context.Context, allocations map[int64]*object) error {
	if len(allocations) == 0 {
		return nil
	}
	rows, err := h.opts.Store.AllocationsByID(ctx, keysOf(allocations))
	if err != nil {
		return err
	}
	for _, row := range rows {
		text, err := json.Marshal(h.opts.Allocation(row.Allocation))
		if err != nil {
			return fmt.Errorf("allocation %d: %w", row.ID, err)
		}
		allocations[row.ID] = &object{text, ownerOf(row.OwnerID, row.OrganisationID)}
	}
	return nil
}

func keysOf[K comparable](m map[K]*object) []K {
	keys := make([]K, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	return keys
}

func newEntry(e db.LoggedEvent, devices map[uuid.UUID]*object, allocations map[int64]*object) *entry {
	of := &entry{
		id: e.ID, at: e.At, kind: string(kindOf(e.Type)), what: changeOf(e), owner: ownerOf(e.UserID, e.OrganisationID),
		transferred: e.Transferred, previous: ownerOf(e.PreviousUserID, e.PreviousOrganisationID),
		deviceID: e.DeviceID, allocationID: e.AllocationID, payload: e.Payload,
	}
	var found *object
	switch {
	case of.what == asIs:
		of.kind = e.Type
	case of.what == deleted:
	case e.AllocationID != nil:
		found = allocations[*e.AllocationID]
	default:
		found = devices[*e.DeviceID]
	}
	if found != nil {
		of.object, of.current = found.json, found.owner
	}
	return of
}

// frame returns the event as it is sent to those to whom it is a change.
func (e *entry) frame(epoch string, what change) ([]byte, error) {
	if e.frames[what] == nil {
		name, text, err := e.render(what)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", e.id, err)
		}
		e.frames[what] = frame(position{epoch, e.id}.String(), name, text)
	}
	return e.frames[what], nil
}

// render returns the type of the event, and the event as JSON.
func (e *entry) render(what change) (string, []byte, error) {
	if what == asIs {
		text, err := withFields(data{Type: e.kind, At: e.at.UTC()}, e.payload)
		return e.kind, text, err
	}
	name := e.kind + "." + map[change]string{created: "created", updated: "updated", deleted: "deleted"}[what]
	d := data{Type: name, At: e.at.UTC(), DeviceID: e.deviceID, AllocationID: e.allocationID}
	switch {
	case what == deleted:
	case e.allocationID != nil:
		d.Allocation = e.object
	default:
		d.Device = e.object
	}
	text, err := json.Marshal(d)
	return name, text, err
}

// withFields returns an event with the fields of a JSON object besides its own.
func withFields(d data, fields json.RawMessage) ([]byte, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	var more map[string]json.RawMessage
	if len(fields) == 0 {
		return text, nil
	}
	if err := json.Unmarshal(fields, &more); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &more); err != nil { // The event's own fields win.
		return nil, err
	}
	return json.Marshal(more)
}

// frame returns an event as it is sent. Without an id a subscriber's position stays what it was. JSON has no line
// breaks outside of strings, and none in them either.
func frame(id, name string, text []byte) []byte {
	out := make([]byte, 0, len(text)+len(id)+len(name)+32)
	if id != "" {
		out = append(append(append(out, "id: "...), id...), '\n')
	}
	out = append(append(append(out, "event: "...), name...), "\ndata: "...)
	return append(append(out, text...), "\n\n"...)
}
