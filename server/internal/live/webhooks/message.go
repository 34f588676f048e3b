package webhooks

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// typeTest is the type of messages that people ask for.
const typeTest = "webhook.test"

// message returns the message of an event that is noticed now.
func (s *Service) message(event string, data types.WebhookData) (db.WebhookMessage, error) {
	id, err := newMessageID()
	if err != nil {
		return db.WebhookMessage{}, fmt.Errorf("id of a message: %w", err)
	}
	payload, err := json.Marshal(types.WebhookPayload{Type: event, Timestamp: s.opts.Now().UTC().Truncate(time.Millisecond), Data: data})
	return db.WebhookMessage{ID: id, Type: event, PayloadJSON: string(payload)}, err
}

// eventMessage returns the message of an event that was found in the database.
func (s *Service) eventMessage(event db.WebhookEvent) (db.WebhookMessage, error) {
	var data types.WebhookData
	if event.Device != nil {
		device := s.opts.Device(*event.Device)
		// Whoever has the code can have the device approved as theirs: the person at the machine passes it on.
		device.UserCode = nullable.NewNullNullable[string]()
		data.Device = &device
	}
	if event.Allocation != nil {
		allocation := s.opts.Allocation(*event.Allocation)
		data.Allocation = &allocation
	}
	if event.Type == db.EventEnrollmentWaiting {
		page := s.opts.PublicURL.JoinPath("device").String()
		data.ApprovalURL = &page
	}
	return s.message(event.Type, data)
}

// quotaMessage returns the message of a quota that was reached.
func (s *Service) quotaMessage(reached db.QuotaError) (db.WebhookMessage, error) {
	quota := types.WebhookQuota{
		Resource: types.QuotaResource(reached.Resource), Limit: reached.Limit, Used: reached.Used,
		UserID: nullable.NewNullNullable[int64](), OrganisationID: nullable.NewNullNullable[int64](),
	}
	if reached.UserID != 0 {
		quota.UserID.Set(reached.UserID)
	}
	if reached.OrganisationID != 0 {
		quota.OrganisationID.Set(reached.OrganisationID)
	}
	return s.message(db.EventQuotaReached, types.WebhookData{Quota: &quota})
}
