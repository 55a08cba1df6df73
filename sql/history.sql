-- Whether commits were lost: a standby was promoted that had not had them all, a backup was restored. The bank then
-- remembers requests of which no receipt knows, for as long as it keeps its answers.

create or replace function current_timeline() returns int language sql as $$
  select ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int
$$;

-- Writes a line; what has been written within the last minute for the same reason is not written again.
create or replace function note_history(why text, known pg_lsn default null, at_time timestamptz default null) returns void
language plpgsql as $$
declare
  moment timestamptz := coalesce(at_time, clock_timestamp());
begin
  perform pg_advisory_xact_lock(hashtextextended('history', 0));
  insert into history (reason, system_identifier, timeline, position, known_position, noticed_at)
  select why, c.system_identifier::text, current_timeline(), pg_current_wal_insert_lsn(), known, moment
  from pg_control_system() as c
  where not exists (
    select from history h
    where h.id = (select max(id) from history) and h.timeline = current_timeline()
      and h.system_identifier = c.system_identifier::text
      and (why in ('TIMELINE_CHANGED', 'SYSTEM_CHANGED')
           or h.reason = why and h.noticed_at > moment - interval '1 minute'));
end $$;

-- Looked at by each claim, since any connection may be one to another server than the last.
-- known: { systemIdentifier, timeline, position } of the write-ahead log, as the caller saw it last; or null
create or replace function is_history_lost(known jsonb, moment timestamptz) returns boolean language plpgsql as $$
declare
  newest history;
  timeline int := current_timeline();
begin
  select * into newest from history order by id desc limit 1;
  if newest.timeline is distinct from timeline then
    perform note_history('TIMELINE_CHANGED', at_time => moment);
  elsif known ->> 'systemIdentifier' = newest.system_identifier and (known ->> 'timeline')::int = timeline
        and (known ->> 'position')::pg_lsn > pg_current_wal_insert_lsn()
        and newest.known_position is distinct from (known ->> 'position')::pg_lsn then
    perform note_history('POSITION_WENT_BACK', (known ->> 'position')::pg_lsn, moment);
  else
    return says_lost(newest, moment);
  end if;
  return true;
end $$;

-- The bank deletes a stored answer within an hour once it is older than 24.
create or replace function bank_memory() returns interval language sql immutable as $$ select interval '25 hours' $$;

-- NOTHING_LOST: a person says so, after a planned switch to a standby that had everything.
create or replace function says_lost(newest history, moment timestamptz) returns boolean language sql as $$
  select newest.reason not in ('FIRST', 'NOTHING_LOST') and moment < newest.noticed_at + bank_memory()
$$;

-- What was told to be committed lies before it. Beyond it a crash cuts the log off, and nothing is lost by that; unless
-- commits do not wait for the disk.
create or replace function committed_position() returns pg_lsn language sql as $$
  select case current_setting('synchronous_commit') when 'off' then pg_current_wal_insert_lsn() else pg_current_wal_flush_lsn() end
$$;

-- At the start and every few seconds: how far the log has come, and since when commits are known to be lost.
create or replace function look_at_history(known jsonb, at_time timestamptz default null)
returns table (system_identifier text, timeline int, "position" text, lost_at timestamptz)
language plpgsql as $$
declare
  moment timestamptz := coalesce(at_time, clock_timestamp());
  newest history;
begin
  select * into newest from history order by id desc limit 1;
  if newest.system_identifier <> (select c.system_identifier::text from pg_control_system() as c) then
    perform note_history('SYSTEM_CHANGED', at_time => moment);
  else
    perform is_history_lost(known, moment);
  end if;
  return query select c.system_identifier::text, current_timeline(), committed_position()::text,
    (select h.noticed_at from history h where h.id = (select max(id) from history) and says_lost(h, moment))
  from pg_control_system() as c;
end $$;
