-- What operators look for, and what is counted at each scrape of the metrics, is found without reading all payments.
create index payments_with_possible_orphan_hold on payments (id) where possible_orphan_hold_since is not null;
