CREATE FUNCTION transmute.transform(record jsonb, pipeline jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  result jsonb := record;
  stage jsonb;
  verb text;
  body jsonb;
  field text;
  kind text;
  of_type regtype;
  converted jsonb;
  place integer := -1;
BEGIN
  IF transform.pipeline IS NULL OR jsonb_typeof(transform.pipeline) <> 'array' THEN
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a pipeline is a list of stages',
      DETAIL = format('pipeline is %s.', coalesce(jsonb_typeof(transform.pipeline), 'NULL')),
      HINT = 'Such as [{"rename": {"old": "new"}}, {"convert": {"new": "integer"}}].';
  END IF;
  IF jsonb_typeof(record) <> 'object' THEN
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a record is an object',
      DETAIL = format('record is %s.', jsonb_typeof(record)), HINT = 'Such as to_jsonb(a_row).';
  END IF;
  FOR stage IN SELECT * FROM jsonb_array_elements(transform.pipeline) LOOP
    place := place + 1;
    IF jsonb_typeof(stage) = 'array' THEN
      result := transmute.transform(result, stage);
      CONTINUE;
    END IF;
    verb := CASE WHEN jsonb_typeof(stage) = 'object' THEN (SELECT string_agg(k, ', ') FROM jsonb_object_keys(stage) AS k) END;
    IF verb IS DISTINCT FROM 'rename' AND verb IS DISTINCT FROM 'convert' THEN
      RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'unknown stage of a pipeline',
        DETAIL = format('pipeline[%s] is %s.', place, stage),
        HINT = 'A stage is {"rename": {"old": "new"}}, {"convert": {"field": "type"}}, or a list of stages.';
    END IF;
    body := stage -> verb;
    IF jsonb_typeof(body) <> 'object' OR EXISTS (SELECT FROM jsonb_each(body) AS e (k, v) WHERE jsonb_typeof(v) <> 'string' OR v = '""') THEN
      RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a stage of a pipeline maps names to names',
        DETAIL = format('pipeline[%s].%s is %s.', place, verb, body),
        HINT = 'Give an object of texts that are not empty.';
    END IF;
    IF verb = 'rename' THEN
      field := (SELECT coalesce(body ->> f, f) FROM jsonb_object_keys(result) AS f GROUP BY coalesce(body ->> f, f) HAVING count(*) > 1 LIMIT 1);
      IF field IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a rename gives two fields one name',
          DETAIL = format('pipeline[%s]: "%s".', place, field), HINT = 'Rename the other one, too.';
      END IF;
      result := (SELECT coalesce(jsonb_object_agg(coalesce(body ->> e.key, e.key), e.value), '{}') FROM jsonb_each(result) AS e);
    ELSE
      FOR field, kind IN SELECT * FROM jsonb_each_text(body) LOOP
        of_type := to_regtype(kind);
        IF of_type IS NULL THEN
          RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'unknown type in a pipeline',
            DETAIL = format('pipeline[%s].convert.%s is "%s".', place, field, kind), HINT = 'Name a type, with its schema if it is not of pg_catalog.';
        END IF;
        CONTINUE WHEN result ->> field IS NULL;
        BEGIN
          EXECUTE format('SELECT to_jsonb(CAST($1 AS %s))', of_type) INTO STRICT converted USING result ->> field;
          result := jsonb_set(result, ARRAY[field], converted);
        EXCEPTION WHEN data_exception OR integrity_constraint_violation OR cannot_coerce THEN
          RAISE WARNING 'transmute: field "%" is kept as it is: %', field, SQLERRM;
        END;
      END LOOP;
    END IF;
  END LOOP;
  RETURN result;
END
$$;
COMMENT ON FUNCTION transmute.transform(jsonb, jsonb) IS 'Sends a record, an object, through a pipeline, a list of stages: {"rename": {"old": "new"}}, {"convert": {"field": "type"}}, or a list of stages. A field that is not there is left out of account; one that cannot be converted is kept, with a WARNING. NULL record: NULL.';
